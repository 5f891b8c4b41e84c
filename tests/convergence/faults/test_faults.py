"""A fast selection of the matrix: what is planted is seen, by the gate that is there for it; what is correct passes.

The whole matrix takes many minutes: `make faults`, or `pytest -m slow` here.
"""

import csv

import pytest
from scipy import stats

from tests.convergence.faults import calibration
from tests.convergence.faults.catalogue import FAULTS
from tests.convergence.faults.matrix import chosen, examine, read, write
from vaebench.gates.verdict import LEVEL, judge, two_sided

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
    write(tmp_path / "sub" / "rows.csv", [row])
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
    with open("reports/faults/calibration.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["bed"] for row in rows} == set(calibration.BEDS)
    assert not [row for row in rows if row["outcome"] == "fail"]
    for gate, p in calibration.by_gate(rows).items():
        assert stats.kstest(p, "uniform", alternative="greater").pvalue > 1e-4, gate
