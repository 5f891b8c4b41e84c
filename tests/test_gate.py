"""The gate's judgement on planted results."""

import math

import pytest
from asv.util import UserError

from benchmarks.harness import gate

CASE = "estimators.Cost.track_flops('pathwise', 8)"


@pytest.mark.parametrize("after", [1000, 1001, 500, 0])
def test_no_rise_passes(after):
    outcome = gate.compare({CASE: 1000}, {CASE: after})
    assert (outcome.compared, outcome.failures) == (1, [])


@pytest.mark.parametrize(("before", "after"), [(1000, 1002), (0, 1)])
def test_a_rise_fails_and_names_case_and_values(before, after):
    outcome = gate.compare({CASE: before}, {CASE: after})
    assert outcome.failures == [f"{CASE}: rose from {before} to {after}"]


def test_a_rise_of_one_in_billions_is_printed_in_full():
    outcome = gate.compare({CASE: 788_766_720}, {CASE: 789_766_720})
    assert outcome.failures == [f"{CASE}: rose from 788766720 to 789766720"]


@pytest.mark.parametrize("head", [{CASE: None}, {}])
def test_a_lost_value_fails(head):
    assert gate.compare({CASE: 1000}, head).failures == [f"{CASE}: fails, was 1000"]


@pytest.mark.parametrize("before", [None, math.nan])
@pytest.mark.parametrize("after", [None, math.nan, 7])
def test_without_a_value_at_base_nothing_fails_but_all_is_noted(before, after):
    outcome = gate.compare({CASE: before}, {CASE: after})
    assert (outcome.compared, outcome.failures, len(outcome.notes)) == (0, [], 1)


def test_no_longer_applicable_is_noted():
    outcome = gate.compare({CASE: 1000}, {CASE: math.nan})
    assert (outcome.failures, outcome.notes) == ([], [f"{CASE}: not applicable, was 1000"])


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (gate.Comparison(compared=1), 0),
        (gate.Comparison(compared=1, failures=["rose"]), 1),
        (gate.Comparison(notes=["new"]), 1),
    ],
)
def test_status(outcome, status, capsys):
    assert gate.report(outcome) == status
    assert f"{outcome.compared} counters compared" in capsys.readouterr().out


def test_an_unknown_commit_is_refused():
    with pytest.raises(UserError, match="'no-such-commit' is not a commit"):
        gate.commits("no-such-commit")
