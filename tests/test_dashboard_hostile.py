"""Histories that nobody wishes for: no false alarm, no missed rise, no traceback, and an end."""

import json
import math
import shutil

import pytest
from asv.util import UserError

from benchmarks.harness.dashboard import changes, checked
from tests.histories import COMMITS, VALUES, History

OPS = "models.Model.track_ops('conv')"


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def published(history):
    """The list of regressions; asv ends well, and no traceback is printed."""
    done = history.publish()
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in said, said
    return json.loads((history.folder / "reports/html/regressions.json").read_text())["regressions"]


def listed(history):
    return [(row[0], row[6][0][2:]) for row in published(history)]


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, 1e308, -1e308, 10**400], ids=["inf", "-inf", "large", "-large", "digits"]
)
def test_numbers_on_which_the_search_for_steps_never_ends_are_drawn_nowhere_and_said(history, value):
    for number in range(4):
        history.measure(number, "one", track_ops=[100, value if number in (1, 2) else 200], time_step=[value])
    assert published(history) == []
    assert "6 values are infinite, or too large" in history.page
    graphs = (history.folder / "reports/html/graphs").rglob("models.Model.track_ops.json")
    (graph,) = [path for path in graphs if "summary" not in path.parts]
    drawn = [values[1] for _, values in json.loads(graph.read_text())]
    assert drawn == [200, None, None, 200]


def test_a_guarantee_that_is_infinite_is_violated(history):
    for number in range(3):
        history.measure(number, "one", track_envelope_ratio=[math.inf if number == 2 else 0.93, 0.88])
    published(history)
    assert "violated" in history.page and "the guarantee holds" not in history.page


def test_a_rise_around_an_infinite_number_is_seen(history):
    for number, value in enumerate([200, math.inf, 230]):
        history.measure(number, "one", track_ops=[100, value])
    assert listed(history) == [(OPS, [200, 230])]


def test_what_becomes_infinite_is_lost(history):
    for number, value in enumerate([200, 200, math.inf]):
        history.measure(number, "one", track_ops=[100, value])
    assert published(history) == []
    assert "once had a value have none now" in history.page and "infinite, or too large" in history.page


@pytest.mark.parametrize("value", [0.0, -1.0, 5e-324])
def test_numbers_without_a_place_on_a_logarithmic_axis_stop_nothing(history, value):
    for number in range(2):
        usual = {name.rsplit(".", 1)[1]: [value] * len(cases) for name, cases in VALUES.items()}
        history.measure(number, "one", **usual)
    assert published(history) == []


def test_one_result_of_one_machine(history):
    history.measure(3, "one")
    assert published(history) == [] and "the guarantee holds" in history.page


def test_an_empty_history(history):
    assert published(history) == []
    assert "No commit has an envelope ratio" in history.page


def test_a_history_of_failures_alone(history):
    for number in range(3):
        history.measure(number, "one", **{name.rsplit(".", 1)[1]: [None] * len(c) for name, c in VALUES.items()})
    assert published(history) == []
    assert "not measured" in history.page and "the guarantee holds" not in history.page


def test_a_history_of_benchmarks_whose_build_failed(history):
    def fail(kept):
        for row in kept["results"].values():
            row[0] = None

    for number in range(3):
        history.measure(number, "one", edit=fail)
    assert published(history) == []
    assert "the guarantee holds" not in history.page


def test_results_of_a_commit_that_is_nowhere_are_left_out_and_counted(history):
    history.measure(0, "one")
    history.commits[1] = "0123456789" * 4
    history.measure(1, "one", track_ops=[900, 900])
    history.measure(2, "one")
    assert published(history) == []
    assert "results of commits that are not on this branch (1)" in history.page


def test_one_name_of_two_processors_is_two_machines(history):
    """The second one is slower, and its seeded numbers differ by 3 %."""
    for number in range(COMMITS):
        history.measure(number, "one", about={"cpu": "quick"}, track_envelope_ratio=[0.90, 0.88])
    for number in range(COMMITS):
        folder = history.results / "one"
        slow = {"cpu": "slow"}
        (folder / f"{history.commits[number][:8]}-e.json").rename(folder / f"{history.commits[number][:8]}-f.json")
        history.measure(number, "one", about=slow, track_envelope_ratio=[0.93, 0.88], time_step=[0.05])
    for path in sorted((history.results / "one").glob("*-e.json"))[:2]:
        path.unlink()  # the slow one came later
    assert published(history) == []
    assert {one.processor for one in history.readings()} == {"quick", "slow"}


@pytest.mark.parametrize(("last", "alarms"), [(100, 0), (120, 1)])
def test_processors_of_one_name_that_take_turns_are_held_against_themselves(history, last, alarms):
    for number, (cpu, value) in enumerate([("a", 100), ("b", 150), ("a", last), ("b", 150)]):
        history.measure(number, "one", about={"cpu": cpu}, track_ops=[value, 200])
    assert len(changes.regressions(history.readings(), lambda *_: ())) == alarms


def test_more_threads_begin_another_history_of_timings_but_not_of_counters(history):
    def threads(kept):
        kept["env_vars"] = {"OMP_NUM_THREADS": "8"}

    for number in range(COMMITS):
        history.measure(number, "one", time_step=[0.01])
    readings = history.readings()
    for number in range(COMMITS):
        history.measure(number, "one", edit=threads, time_step=[0.2], track_ops=[100, 230])
    mixed = [*readings, *(one for one in history.readings() if one.revision >= 5)]
    mixed = sorted(mixed, key=lambda one: one.revision)
    assert changes.timed_regressions(mixed) == []
    assert [(one.before, one.after) for one in changes.exact_changes(mixed, lambda *_: ())] == [(200, 230)]


def test_a_renamed_benchmark_is_neither_a_rise_nor_lost(history):
    def rename(kept):
        kept["results"]["models.Model.track_ops_of_old"] = kept["results"].pop("models.Model.track_ops")

    for number in range(4):
        history.measure(number, "one", edit=rename if number < 2 else None, track_ops=[900, 900])
    assert published(history) == []
    assert "have none now" not in history.page


def test_a_benchmark_that_fails_at_one_commit_hides_no_rise_and_is_not_lost(history):
    for number, value in enumerate([200, None, 230]):
        history.measure(number, "one", track_ops=[100, value])
    assert listed(history) == [(OPS, [200, 230])]
    assert "have none now" not in history.page


def test_a_counter_that_fell_and_rose_again_is_a_rise(history):
    for number, value in enumerate([200, 150, 200]):
        history.measure(number, "one", track_ops=[100, value])
    assert listed(history) == [(OPS, [150, 200])]


def test_one_run_that_is_ten_times_slower_is_no_regression(history):
    for number in range(COMMITS):
        history.measure(number, "one", time_step=[0.1 if number == COMMITS - 1 else 0.01])
    assert published(history) == []


def test_versions_that_are_null_are_empty(history):
    def null(kept):
        kept["params"]["torch"] = None

    for number, value in enumerate([200, 230]):
        history.measure(number, "one", edit=null, track_ops=[100, value])
    assert listed(history) == [(OPS, [200, 230])]


def test_names_with_markup_are_escaped(history):
    history.measure(0, "<script>alert(1)<")
    published(history)
    assert "<script>alert" not in history.page and "&lt;script&gt;alert(1)" in history.page


DAMAGED = {
    "a list": [],
    "a number": 3,
    "empty": {},
    "no results": {"results": []},
    "values that are words": {"results": {OPS: [["100"], [], "1", 1, 1.0]}},
    "values that are an object": {"results": {"models.Model.track_ops": [{}, [], "1", 1, 1.0]}},
    "a row that is a word": {"results": {"models.Model.track_ops": "100"}},
    "parameters of another kind": {"results": {"models.Model.track_ops": [[1, 2], [[1, 2]], "1", 1, 1.0]}},
    "no commit": {"commit_hash": None},
    "a date far away": {"date": 10**18},
    "a start that is a word": {
        "results": {"models.Model.track_ops": [[1, 2], [["'mlp'", "'conv'"]], "1", "then", 1.0]}
    },
    "no parameters": {"params": None},
    "no machine": {"params": {"python": "3.11"}},
    "variables of another kind": {"env_vars": {"A": 1}},
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_files_of_another_form_are_left_out_in_one_sentence_and_counted(history, damage):
    for number, value in enumerate([200, 900, 230]):
        history.measure(number, "one", track_ops=[100, value])
    path = history.results / "one" / f"{history.commits[1][:8]}-e.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | damage if isinstance(damage, dict) and damage else damage))
    assert listed(history) == [(OPS, [200, 230])]
    assert "files of results that asv cannot read (1)" in history.page


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"", b"null"])
def test_bytes_that_are_no_json_are_left_out(history, content):
    for number in range(2):
        history.measure(number, "one")
    (history.results / "one" / f"{history.commits[1][:8]}-e.json").write_bytes(content)
    assert published(history) == []
    assert "files of results that asv cannot read (1)" in history.page


def test_a_folder_where_a_file_should_be_is_left_out(history):
    history.measure(0, "one")
    (history.results / "one" / "0123-e.json").mkdir()
    assert published(history) == []


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"machine": 1}', "{"])
def test_a_machine_or_a_list_of_benchmarks_that_is_none_stops_it_in_one_sentence(history, content):
    history.measure(0, "one")
    for path in (history.results / "one" / "machine.json", history.results / "benchmarks.json"):
        kept = path.read_text()
        path.write_text(content)
        done = history.publish()
        said = done.stdout + done.stderr
        assert done.returncode == 1 and "Traceback" not in said and path.name in said
        path.write_text(kept)


@pytest.mark.parametrize("field", ["began", "ended", "control", "load", "others"])
@pytest.mark.parametrize("value", [math.nan, "x", None, -1.0])
def test_records_of_conditions_that_are_none_stop_it_in_one_sentence(history, field, value):
    for number in range(2):
        history.measure(number, "one")
    path = history.results / "one" / "conditions.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | {field: value})}\n")
    if field == "others" and value is None:
        assert len(history.readings()) > 0
        return
    with pytest.raises(UserError, match="holds a line that is no record"):
        history.readings()


@pytest.mark.parametrize(
    ("value", "drawn"),
    [(1, 1), (0.5, 0.5), (math.nan, None), (math.inf, None), (1e101, None), (-1e101, None), (10**400, None)],
)
def test_what_can_be_drawn(value, drawn):
    assert checked.drawable(value) == drawn and checked.drawable([value, [value]]) == [drawn, [drawn]]


def test_a_removed_machine_leaves_nothing_behind(history):
    for machine in ("one", "two"):
        history.measure(0, machine)
    published(history)
    shutil.rmtree(history.results / "two")
    published(history)
    assert ">two<" not in history.page
