"""The gate's judgement on planted results, what maintainers say about them, and how it is told."""

import math

import pytest
from asv.util import UserError

from benchmarks.harness import counters, gate, triage
from benchmarks.harness.triage import Entry, Triage
from vaebench.support.kinds import EXACT, kind

CASE = "estimators.Cost.track_flops('pathwise', 8)"
OTHER = "models.Model.track_ops('mlp', 'cpu')"


def failures(*arguments):
    return [str(row) for row in counters.compare(*arguments).failures]


@pytest.mark.parametrize("after", [1000, 999, 500, 0])
def test_no_rise_passes(after):
    outcome = counters.compare({CASE: 1000}, {CASE: after})
    assert (outcome.compared, outcome.failures) == (1, [])


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [(1000, 1001, "+0.10 %"), (100_000, 100_001, "+1.0e-03 %"), (0, 1, "from zero")],
)
def test_a_rise_fails_and_names_case_and_values(before, after, share):
    assert failures({CASE: before}, {CASE: after}) == [f"{CASE}: {before} -> {after} ({share})"]


def test_a_rise_of_one_in_billions_is_printed_in_full():
    assert failures({CASE: 788_766_720}, {CASE: 789_766_720}) == [f"{CASE}: 788766720 -> 789766720 (+0.13 %)"]


def test_a_counter_that_fails_at_head_is_a_failure_whatever_is_said():
    said = Triage(gone=(Entry(("*",), "We no longer count it."),))
    assert failures({CASE: 1000}, {CASE: None}, (), said) == [f"{CASE}: 1000 -> fails (it works at BASE)"]


def test_a_counter_that_turns_not_applicable_is_a_failure():
    assert failures({CASE: 1000}, {CASE: math.nan}) == [f"{CASE}: 1000 -> n/a (it applies at BASE)"]


def test_a_benchmark_that_head_deletes_is_a_failure_though_nothing_could_be_measured():
    assert failures({OTHER: 1}, {OTHER: 1}, (CASE, OTHER)) == [f"{CASE}: is no benchmark of HEAD any more"]
    assert failures({CASE: 1000}, {}) == [f"{CASE}: 1000 -> gone (is no benchmark of HEAD any more)"]


@pytest.mark.parametrize("head", [{CASE: math.nan}, {}])
def test_what_is_gone_on_purpose_is_no_failure(head):
    outcome = counters.compare({CASE: 1000}, head, (CASE,), Triage(gone=(Entry(("estimators.*",), "Too slow."),)))
    assert not outcome.failures
    assert [(row.case, row.remark) for row in outcome.explained] == [(CASE, "Too slow.")]


@pytest.mark.parametrize(("commits", "failed"), [(("abcdef1234",), 0), (("1234567890",), 1)])
def test_a_rise_is_explained_by_a_commit_of_this_change_alone(commits, failed):
    known = Triage(moved=(Entry(("estimators.Cost.track_flops",), "A better estimator.", "abcdef1"),))
    outcome = counters.compare({CASE: 1000}, {CASE: 2000}, (), known, commits)
    assert (len(outcome.failures), len(outcome.explained)) == (failed, 1 - failed)


@pytest.mark.parametrize("before", [None, math.nan])
@pytest.mark.parametrize("after", [None, math.nan, 7])
def test_without_a_value_at_base_nothing_fails_but_all_is_noted(before, after):
    outcome = counters.compare({CASE: before}, {CASE: after})
    assert (outcome.compared, outcome.failures, len(outcome.notes)) == (0, [], 1)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (counters.Comparison(compared=1), 0),
        (counters.Comparison(compared=1, failures=[counters.Row("rose")]), 1),
        (counters.Comparison(notes=[counters.Row("new")]), 1),
    ],
)
def test_status(outcome, status, capsys):
    assert counters.report(outcome) == status
    told = capsys.readouterr().out
    assert counters.verdict(outcome) in told and all(row.case in told for row in outcome.notes + outcome.failures)


def test_the_comment_has_what_got_worse_first_and_folds_what_is_as_it_was():
    before = {CASE: 1000, OTHER: 100, "data.Load.track_bytes": 5}
    text = counters.markdown(counters.compare(before, {CASE: 1100, OTHER: 90, "data.Load.track_bytes": 5}))
    assert text.startswith("### Exact counters: 3 counters compared, 1 failures.\n")
    worse, better, same = (text.index(word) for word in ("**Regressions: 1**", "**Improvements: 1**", "Unchanged: 1"))
    assert worse < text.index("| 1000 | 1100 | +10.00 % |") < better < text.index("| 100 | 90 | -10.00 % |") < same
    assert text.count("<details>") == text.count("</details>") == 1 and text.index("<details>") > better


@pytest.mark.parametrize("name", ["no-such-commit", "-h", "x';id;'", "$(touch /tmp/x)"])
def test_an_unknown_commit_is_refused(name):
    with pytest.raises(UserError, match="is not a commit"):
        gate.commits(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("models.Model.track_flops", "exact"),
        ("estimators.IwaeMlp.track_saved_bytes", "exact"),
        ("speed.Peak.track_over_chunk", "exact"),
        ("data.Load.track_bytes", "exact"),
        ("convergence.Sgd.track_flops_to_goal", "seeded"),
        ("estimators.IwaeMlp.track_variance", "seeded"),
        ("convergence.Signal.track_inverse_snr", "seeded"),
        ("models.Model.time_step", "timed"),
        ("fleet.Fleet.track_ratio", "timed"),
        ("speed.Roof.track_over_sgemm", "timed"),
    ],
)
def test_kinds(name, expected):
    assert kind(name) == expected


def test_asv_finds_exact_counters_by_name_and_parameters():
    """asv searches for the pattern in a name with its parameters."""
    assert EXACT.search(CASE) and EXACT.search(OTHER) and not EXACT.search("convergence.Sgd.track_flops_to_goal(1.0)")


def test_the_triage_file_is_read():
    known = triage.read()
    assert known.moved and all(len(entry.commit) >= 7 and entry.reason.endswith(".") for entry in known.moved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[moved]\n", "is not TOML"),
        ("[[wrong]]\nreason = 'abcdefgh'\n", "has no table 'wrong'"),
        ("[[gone]]\nbenchmarks = ['a']\n", "must have benchmarks and reason"),
        ("[[gone]]\nbenchmarks = 'a'\nreason = 'abcdefgh'\n", "a list of patterns"),
        ("[[moved]]\nbenchmarks = ['a']\nreason = 'abcdefgh'\ncommit = 'abc'\n", "an entry must have"),
        ("[[moved]]\nbenchmarks = ['a']\nreason = 'abcdefgh'\ncommit = 12345678\n", "an entry must have"),
    ],
)
def test_a_triage_file_that_cannot_be_meant_is_refused(tmp_path, text, message):
    path = tmp_path / "triage.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        triage.read(path)


def test_without_a_triage_file_nothing_is_explained(tmp_path):
    assert triage.read(tmp_path / "none.toml") == Triage()
