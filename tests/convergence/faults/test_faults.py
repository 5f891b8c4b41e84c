"""A fast selection of the matrix: what is planted is seen, by the gate that is there for it; what is correct passes.

The whole matrix takes many minutes: `make faults`, or `pytest -m slow` here.
"""

from pathlib import Path

import pytest
from scipy import stats

from tests.convergence.faults import calibration, detection
from tests.convergence.faults.catalogue import FAULTS
from tests.convergence.faults.matrix import COLUMNS, chosen, examine
from tests.convergence.faults.measuring import COMMITS, SETTINGS, gates_of, measure_missing
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


def measured(path, seeds, say=lambda line: None):
    """The ledger of two beds after what is missing was measured, and which jobs that were."""
    ran = []

    def measure(bed, seed):
        ran.append((bed, seed))
        return [{"bed": bed, "seed": seed, "gate": gate, "p": "new"} for gate in ("mean", "value")]

    jobs = {(bed, seed): lambda b=bed, s=seed: measure(b, s) for seed in seeds for bed in ("elbo", "iwae")}
    rows = measure_missing(path, calibration.COLUMNS, ("bed", "seed"), jobs, say)
    assert read(path) == [dict.fromkeys(calibration.COLUMNS, "") | row for row in rows]
    return rows, ran


def test_rows_of_other_gates_are_measured_again(tmp_path):
    """Of four jobs one has rows of today's gates, one of older ones, one of none that it names; one is no job."""
    path, told = tmp_path / "rows.csv", []
    columns = [name for name in calibration.COLUMNS if name != "settings"]
    write(path, columns, [{"bed": "elbo", "seed": "1", "gate": "mean", "p": "unnamed"}])
    assert gates_of(read(path)).startswith("0 of 1 rows were measured with the gates of commit " + COMMITS[SETTINGS])
    assert measured(path, ["1"])[1] == [("elbo", "1"), ("iwae", "1")]
    old = [dict(row, settings="2", p="old") if row["bed"] == "iwae" else dict(row, p="kept") for row in read(path)]
    write(path, calibration.COLUMNS, [*old, {"bed": "none", "seed": "1", "settings": SETTINGS}])
    rows, ran = measured(path, ["1", "2"], told.append)
    assert ran == [("iwae", "1"), ("elbo", "2"), ("iwae", "2")]
    assert told == ["2/4 iwae, 1", "3/4 elbo, 2", "4/4 iwae, 2"]
    cells = [(row["bed"], row["seed"], row["gate"], row["settings"], row["p"]) for row in rows]
    assert cells[:3] == [
        ("elbo", "1", "mean", SETTINGS, "kept"),
        ("elbo", "1", "value", SETTINGS, "kept"),
        ("iwae", "1", "mean", SETTINGS, "new"),
    ]
    assert len(cells) == 8 and measured(path, ["1", "2"])[1] == []


def test_older_rows_stand_until_they_are_measured_again(tmp_path):
    path = tmp_path / "rows.csv"
    write(path, calibration.COLUMNS, [{"bed": bed, "seed": "1", "settings": "2"} for bed in ("elbo", "iwae")])

    def interrupted(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(path, ["1"], interrupted)
    assert [(row["bed"], row["settings"]) for row in read(path)] == [("elbo", SETTINGS)] * 2 + [("iwae", "2")]


def test_the_page_names_the_commit_of_the_gates():
    """Alone if all rows are of today's gates; with what is older, how many rows there are of each."""
    today, old, unnamed = {"settings": SETTINGS}, {"settings": "2"}, {"bed": "elbo"}
    assert gates_of([today, today]) == f"Measured with the gates of commit {COMMITS[SETTINGS]}."
    assert gates_of([today, old, unnamed, old]) == (
        f"1 of 4 rows were measured with the gates of commit {COMMITS[SETTINGS]}; 1 with those of an earlier commit "
        f"that the rows do not name, 2 with those of commit {COMMITS['2']}, which the same command measures again."
    )
    assert set(COMMITS) >= {row["settings"] for name in ("sgd", "adam", "nulls") for row in read(KEPT / f"{name}.csv")}


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
