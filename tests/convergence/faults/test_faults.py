"""A fast selection of the matrix: what is planted is seen, by the gate that is there for it; what is correct passes.

The whole matrix takes many minutes: `make faults`, or `pytest -m slow` here.
"""

import pytest

from tests.convergence.faults.catalogue import FAULTS
from tests.convergence.faults.matrix import chosen, examine, read, write

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
