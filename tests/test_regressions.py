"""What is called a regression, on made-up readings."""

import numpy as np
import pytest

from benchmarks.harness.dashboard import changes
from benchmarks.harness.dashboard.history import Reading

TIME, OPS = "models.Model.time_step", "models.Model.track_ops"


def reading(benchmark, revision, value, machine="one", doubt="", environment=("torch 2",)):
    commit = f"{revision:040x}"
    return Reading(benchmark, benchmark, None, {}, value, None, commit, revision, machine, environment, doubt)


def timed(values, **more):
    return [reading(TIME, revision, value, **more) for revision, value in enumerate(values)]


def unexplained(case, since, until):
    return ()


QUIET = [1.00, 1.01, 0.99, 1.02, 1.00, 0.98, 1.01, 1.00]


def test_the_fence_lies_three_interquartile_ranges_above_the_upper_quartile_and_above_the_slowest():
    assert changes.fence([1, 2, 3, 4, 5, 6, 7, 8]) == 6.25 + 3 * (6.25 - 2.75)
    assert changes.fence([1, 1, 1, 1, 1, 1, 1, 9]) == 9


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([*QUIET, 2.0, 2.1, 2.0], 1),
        ([*QUIET, 1.0, 2.1, 2.0], 0),
        ([*QUIET, 2.0, 2.1, 1.0], 0),
        ([*QUIET, 6.5], 0),
        ([*QUIET[1:], 2.0, 2.1, 2.0], 0),
        ([*QUIET, 1.03, 1.03, 1.03], 0),
        ([*QUIET, 0.5, 0.5, 0.5], 0),
    ],
    ids=["three", "two", "it came back", "one", "too few before", "within the fence", "faster"],
)
def test_a_timing_is_slower_after_three_runs_above_the_fence_and_never_after_one(values, found):
    assert len(changes.timed_regressions(timed(values))) == found


def test_the_change_says_between_which_commits_and_by_how_much():
    (change,) = changes.timed_regressions(timed([*QUIET, 2.0, 2.2, 2.1]))
    assert (change.since, change.until, change.before, change.after) == (7, 8, 1.0, 2.1)


def test_busy_runs_do_not_count_on_either_side():
    busy = [reading(TIME, revision, 9.0, doubt="busy") for revision in (8, 9, 10)]
    assert changes.timed_regressions([*timed(QUIET), *busy]) == []


def test_timings_of_machines_or_versions_are_not_mixed():
    other = [reading(TIME, revision, 2.0, machine="two") for revision in (8, 9, 10)]
    newer = [reading(TIME, revision, 2.0, environment=("torch 3",)) for revision in (8, 9, 10)]
    assert changes.timed_regressions([*timed(QUIET), *other, *newer]) == []


def test_unchanged_timings_are_called_slower_as_rarely_as_is_said():
    rng, draws = np.random.default_rng(0), 40_000
    samples = rng.standard_t(3, (draws, changes.EARLIER + changes.LATEST))
    earlier, latest = samples[:, : changes.EARLIER], samples[:, changes.EARLIER :]
    likely = np.flatnonzero(latest.min(1) > earlier.max(1))
    wrong = sum(min(latest[n]) > changes.fence(list(earlier[n])) for n in likely)
    assert wrong <= 15  # 6 expected; above 15 with probability 5e-4


def exact(*values, **more):
    return [reading(OPS, revision, value, **more) for revision, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "found"),
    [((100, 100), 0), ((100, 101), 1), ((10**9, 10**9 + 10), 1), ((0.1, 0.1 + 1e-12), 0), ((100, 90), 0), ((0, 1), 1)],
)
def test_an_exact_number_may_not_rise_by_more_than_its_rounding(values, found):
    assert len(changes.regressions(exact(*values), unexplained)) == found


def test_a_rise_that_was_undone_is_told_and_is_no_regression():
    readings = exact(100, 120, 100)
    assert changes.regressions(readings, unexplained) == []
    assert [(change.before, change.after) for change in changes.exact_changes(readings, unexplained)] == [
        (100, 120),
        (120, 100),
    ]


def test_a_rise_on_two_machines_is_one():
    readings = [*exact(100, 120), *exact(100, 120, machine="two")]
    assert len(changes.regressions(readings, unexplained)) == 1


def test_where_machines_differ_only_what_exceeds_all_of_them_has_risen():
    readings = [*exact(100, 100), reading(OPS, 1, 120, machine="two")]
    assert changes.regressions(readings, unexplained) == []
    assert len(changes.regressions([*readings, reading(OPS, 2, 130)], unexplained)) == 1


def on(*values, benchmark=OPS, **more):
    """Readings from (revision, machine, value)."""
    return [reading(benchmark, revision, value, machine=machine, **more) for revision, machine, value in values]


def listed(readings):
    return [(one.since, one.until, one.before, one.after) for one in changes.regressions(readings, unexplained)]


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")], ids=["by name", "the other way"])
@pytest.mark.parametrize(
    ("history", "found"),
    [
        ([(0, 0, 200), (1, 1, 260), (2, 0, 200), (3, 1, 260)], []),  # they take turns, and differ
        ([(0, 0, 200), (1, 1, 260), (2, 0, 200)], []),
        ([(0, 0, 100), (0, 1, 150), (1, 0, 100), (1, 1, 150)], []),
        ([(0, 0, 100), (0, 1, 150), (1, 0, 120), (1, 1, 180)], [(0, 1, 100, 120)]),  # both rose, though they differ
        ([(0, 0, 100), (0, 1, 150), (1, 0, 120), (1, 1, 150)], []),
        ([(0, 0, 100), (1, 1, 120), (2, 0, 120)], [(0, 1, 100, 120)]),  # the machine of the next commit sees it first
        ([(0, 0, 100), (0, 1, 100), (1, 0, 120), (2, 1, 120)], [(0, 1, 100, 120)]),
        ([(0, 0, 100), (0, 1, 100), (1, 0, 120), (2, 1, 100)], []),  # the other one denies it: it was mended
        ([(0, 0, 100), (0, 1, 100), (1, 0, 120), (1, 1, 120), (2, 0, 120), (2, 1, 100)], []),
        ([(0, 0, 100), (1, 0, 120), (2, 0, 100), (3, 0, 120)], [(2, 3, 100, 120)]),  # undone and done again: once
        ([(0, 0, 100), (1, 0, 90), (2, 0, 100)], [(1, 2, 90, 100)]),
    ],
)
def test_machines_that_differ_or_take_turns_hide_no_rise_and_make_none(history, found, order):
    assert listed(on(*((revision, order[which], value) for revision, which, value in history))) == found


def test_a_machine_by_another_name_goes_on_where_the_old_one_ended():
    assert listed(on((0, "amd", 100), (1, "amd", 100), (2, "amd-avx2", 100), (3, "amd-avx2", 101))) == [
        (2, 3, 100, 101)
    ]


def test_a_seeded_number_that_creeps_is_compared_with_where_it_crept_from():
    gap = "convergence.Sgd.track_gap"
    crept = on(*((n, "one", 1.0 * 1.006**n) for n in range(3)), benchmark=gap)
    (change,) = changes.regressions(crept, unexplained)
    assert (change.since, change.until, change.before) == (0, 2, 1.0)
    wandered = on(*((n, "one", 1.0 + 0.004 * (-1) ** n) for n in range(8)), benchmark=gap)
    assert changes.regressions(wandered, unexplained) == []


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_what_is_no_number_between_two_values_neither_hides_a_rise_nor_makes_one(bad):
    assert listed(on((0, "one", 100), (1, "one", bad), (2, "one", 100))) == []
    assert listed(on((0, "one", 100), (1, "one", bad), (2, "one", 101))) == [(0, 2, 100, 101)]


def test_what_does_not_apply_to_another_machine_is_not_lost():
    cuda = on((0, "gpu", 100), (1, "cpu", float("nan")))
    assert changes.lost(cuda) == []
    assert [one.machine for one in changes.lost([*cuda, *on((2, "gpu", float("nan")))])] == ["gpu"]


def test_what_fails_on_a_new_machine_is_lost_unless_another_has_it_at_that_commit():
    assert [one.revision for one in changes.lost(on((0, "one", 100), (1, "two", None)))] == [1]
    assert changes.lost(on((0, "one", 100), (1, "one", 100), (1, "two", None))) == []


def test_another_version_of_torch_begins_another_history():
    assert changes.regressions([*exact(100), reading(OPS, 1, 120, environment=("torch 3",))], unexplained) == []


def test_a_reason_is_asked_for_with_the_commits_between():
    asked = []

    def why(case, since, until):
        asked.append((case, since, until))
        return ("On purpose.",)

    assert changes.regressions(exact(100, 120), why) == []
    assert asked == [(OPS, 0, 1)]


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_has_no_value_any_more_is_lost_until_it_has_one_again(value):
    readings = exact(100, value)
    assert [one.revision for one in changes.lost(readings)] == [1]
    assert changes.lost([*readings, reading(OPS, 2, 100)]) == []
    assert changes.lost(exact(value, value)) == []
