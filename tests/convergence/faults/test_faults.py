"""A fast selection of the matrix: what is planted is seen, by the gate that is there for it; what is correct passes.

The whole matrix takes many minutes: `make faults`, or `pytest -m slow` here.
"""

from pathlib import Path

import pytest
from scipy import stats

from tests.convergence.faults import calibration, detection
from tests.convergence.faults.catalogue import FAULTS
from tests.convergence.faults.matrix import COLUMNS, chosen, examine
from tests.ledgers import read, write
from vaebench.gates.verdict import LEVEL, judge, two_sided

KEPT = Path(__file__).parents[3] / "reports/faults"
FAST = {"steps": 150, "members": 4, "replicates": 800}
LISTED = {"elbo": 19, "iwae": 14}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_correct_run_passes(optimizer):
    row, verdicts = examine(FAULTS["elbo", "none"], optimizer, 1, **FAST)
    assert row["caught"] == "0", [str(v) for v in verdicts if v.outcome == "fail"]
    ran = {v.gate for v in verdicts}
    assert {"gradient mean", "bound value", "descent ledger", "optimizer step", "successive noise"} <= ran
    assert ("Adam's ledger" in ran) == (optimizer == "adam")
    assert ("identity" in ran) == (optimizer == "sgd")


@pytest.mark.parametrize(
    ("optimizer", "name", "gate"),
    [
        ("sgd", "kl x0.5", "gradient mean"),
        ("adam", "gradient x0.9", "gradient mean"),
        ("sgd", "sum over batch", "variance in B"),
        ("sgd", "eps shared in B", "separate rows"),
        ("adam", "constant step", "optimizer step"),
        ("sgd", "averaged gradient, recorded so", "successive noise"),
        ("sgd", "one minibatch for all members", "members"),
        ("adam", "wrong log-normaliser", "bound value"),
    ],
)
def test_a_planted_fault_is_seen_by_its_gate(optimizer, name, gate):
    row, _ = examine(FAULTS["elbo", name], optimizer, 1, **FAST)
    assert row[gate].endswith("*")


def test_all_listed_faults_are_planted():
    for bed, count in LISTED.items():
        assert sum(f.bed == bed and f.source == "listed" for f in FAULTS.values()) == count
    assert {f.rule for f in chosen("sgd")} == {"any", "sgd"}


def test_rows_are_written_whole(tmp_path):
    row = {"source": "listed", "bed": "elbo", "fault": "a, b", "seed": "1", "settings": "1", "caught": "1"}
    write(tmp_path / "sub" / "rows.csv", COLUMNS, [row])
    found = read(tmp_path / "sub" / "rows.csv")
    assert len(found) == 1 and found[0]["fault"] == "a, b" and found[0]["members"] == ""
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["rows.csv"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("key", [key for key, fault in FAULTS.items() if fault.source != "further"], ids=" ".join)
def test_every_listed_fault_is_caught_and_controls_pass(key, optimizer):
    row, _ = examine(FAULTS[key], optimizer, 1)
    assert (row["caught"] == "0") == (FAULTS[key].source == "control")


def test_p_values_of_verdicts_by_hand():
    """At its threshold a gate of several comparisons has its level; the tails at 2 and 4.2649 are 2275 to 1."""
    at_threshold = judge("noise mean", "", two_sided(90), two_sided(90), LEVEL)
    assert calibration.p_value(at_threshold) == pytest.approx(2e-5)
    assert calibration.p_value(judge("members", "", 2.0, two_sided(1), LEVEL)) == pytest.approx(0.0455003, rel=1e-5)
    assert calibration.p_value(judge("gradient mean", "", 3.0, 8.0, 3e-8)) == pytest.approx(3e-3)


def test_correct_runs_that_are_kept_have_no_alarm_and_no_p_values_that_are_too_small():
    """Fourteen gates or so, each with a one-sided Kolmogorov-Smirnov test at 1e-4."""
    rows = read(KEPT / "calibration.csv")
    assert {row["bed"] for row in rows} == set(calibration.BEDS)
    assert not [row for row in rows if row["outcome"] == "fail"]
    for gate, p in calibration.by_gate(rows).items():
        assert stats.kstest(p, "uniform", alternative="greater").pvalue > 1e-4, gate


def test_rates_of_detection_have_the_limits_of_clopper_and_pearson():
    """5 of 5: at least 0.025^(1/5) = 0.4782; 0 of 5: at most 1 - that; 9 of 10: 0.5550 to 0.9975 (tables of 1934)."""
    assert detection.rate(5, 5) == pytest.approx((0.025 ** (1 / 5), 1))
    assert detection.rate(0, 5) == pytest.approx((0, 1 - 0.025 ** (1 / 5)))
    assert detection.rate(9, 10) == pytest.approx((0.5550, 0.9975), abs=1e-4)


def test_small_faults_are_found_as_often_as_is_claimed():
    """Every run that is kept: the control has no alarm, and the limits of no fault's rate lie below 0.9."""
    found = detection.summary(read(KEPT / "detection.csv"))
    assert [row[0] for row in found] == list(detection.EFFECTS)
    for effect, count, _, _, high, _ in found:
        assert count == 0 if "control" in effect else high >= 0.9, effect


@pytest.mark.parametrize("effect", ["a tenth of the gradient lost for fifty steps"])
def test_what_a_loop_does_to_gradients_is_found_in_a_short_run(effect, monkeypatch):
    monkeypatch.setattr(detection, "STEPS", 200)
    row = detection.examine(effect, 0, members=2, replicates=800)
    assert row["found"] == "1" and "replay" in row["gates"].split("; ")
