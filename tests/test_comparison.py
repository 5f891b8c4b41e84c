"""Comparisons: what crosses a bound, what moves, and what cannot be compared."""

import json
import math
import os
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asv.results import Results
from typer.testing import CliRunner

from vaebench.cli import app
from vaebench.cli.compare import SECTIONS
from vaebench.experiments import trajectory
from vaebench.experiments.comparison import change, claims, commits, compare, runs

HISTORY = Path(__file__).parents[1] / "reports" / "history"
FLOPS = "estimators.Cost.track_flops"


def kinds(rows):
    return {row.name: row.kind for row in rows}


@pytest.mark.parametrize(
    ("before", "after", "error", "kind"),
    [
        (1.0, 1.19, 0.1, "same"),
        (1.0, 1.21, 0.1, "moved"),
        (1.0, 0.79, 0.1, "moved"),
        (1.0, 1.0 + 1e-12, 0.0, "same"),
        (1.0, 1.0 + 1e-6, 0.0, "moved"),
        (1.0, 1.0009, None, "same"),
        (-1.0, -1.0011, None, "moved"),
        (0.0, 1e-9, None, "moved"),
        (math.nan, math.nan, None, "same"),
        (math.inf, math.inf, 1.0, "same"),
        (1.0, math.nan, 0.1, "moved"),
        (1.0, math.inf, None, "moved"),
    ],
)
def test_a_number_moves_beyond_two_errors_or_a_thousandth(before, after, error, kind):
    assert change.number("n", before, after, error).kind == kind


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (1000, 1000, "same"),
        (0.1, 0.1 * (1 + 1e-12), "same"),  # a ratio of counts, rounded
        (10**10, 10**10 + 100, "crossed"),
        (0, 1, "crossed"),
        (1000, 999, "improved"),
        (0, 0, "same"),
    ],
)
def test_an_exact_counter_must_not_rise(before, after, kind):
    assert change.counter("flops", before, after).kind == kind


def test_settings_that_differ_are_named_by_their_place():
    before = {"objective": {"alpha": 0, "beta": 1}, "seeds": [0, 1], "device": "cpu"}
    after = {"objective": {"alpha": 1, "beta": 1}, "seeds": [0, 1, 2], "dtype": "float64", "device": "cpu"}
    found = [(row.name, row.before, row.after) for row in change.settings(before, after)]
    expected = [("objective.alpha", 0, 1), ("seeds", "[0, 1]", "[0, 1, 2]"), ("dtype", None, "float64")]
    assert found == expected


def benchmark(name, median=1.0, rounds=5, **kept):
    stats = {"min": 0.9 * median, "median": median, "q1": 0.95 * median, "q3": 1.05 * median, "rounds": rounds}
    return {"fullname": name, "extra_info": kept, "stats": stats}


def claim(name, statistic, bound=1.0, **kept):
    return benchmark(name, rounds=1, claim="it holds", statistic=statistic, bound=bound, **kept)


def report(path, *benchmarks, python="3.11"):
    machine = {"python_version": python, "cpu": {"brand_raw": "a processor"}}
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benchmarks}))
    return path


@pytest.fixture
def reports(tmp_path):
    before = [
        claim("stands", 0.5, standard_error=0.03),
        claim("moves", 0.5, standard_error=0.03),
        claim("breaks", 0.9),
        claim("heals", math.inf),
        claim("fails", 1.5),
        claim("tightened", 0.9, 1.0),
        claim("goes", 0.0),
        benchmark("costs", median=1.0, flops=1000, ops=10.0, device="cpu"),
        benchmark("flickers", median=1.0, rounds=4),
        benchmark("thins", median=1.0, rounds=5),
        benchmark("quickens", median=1.0),
    ]
    after = [
        claim("stands", 0.55, standard_error=0.04),
        claim("moves", 0.61, standard_error=0.04),
        claim("breaks", 1.1),
        claim("heals", 0.9),
        claim("fails", 1.5),
        claim("tightened", 0.9, 0.8),
        claim("comes", 2.0),
        benchmark("costs", median=1.2, flops=1002, ops=9.0, device="cuda"),
        benchmark("flickers", median=9.0, rounds=4),
        benchmark("thins", median=9.0, rounds=4),
        benchmark("quickens", median=0.9),
    ]
    return report(tmp_path / "a.json", *before), report(tmp_path / "b.json", *after, python="3.12")


def test_claims_cross_recover_move_and_times_are_only_noted(reports):
    rows = claims.compare(*map(claims.read, reports))
    expected = {
        "python": "differs",
        "stands": "same",
        "moves": "moved",
        "breaks": "crossed",
        "heals": "recovered",
        "fails": "same",
        "tightened": "crossed",
        "goes": "lost",
        "comes": "appeared",
        "costs: flops": "crossed",
        "costs: ops": "improved",
        "costs: time": "time",
        "flickers: time": "same",
        "thins: time": "same",
        "quickens: time": "time",
        "goes: time": "gone",
        "comes: time": "appeared",
    }
    unchanged = ("stands", "moves", "breaks", "heals", "fails", "tightened")
    assert kinds(rows) == expected | {f"{name}: time": "same" for name in unchanged}
    by_name = {row.name: row for row in rows}
    assert by_name["moves"].z == pytest.approx(0.11 / 0.05)
    assert by_name["tightened"].note == "allowed 0.8, fails, allowed 1 before"
    assert by_name["costs: time"].note == "median x 1.2, minimum x 1.2"
    assert by_name["comes"].note == "allowed 1, fails"


def test_a_statistic_without_a_number_is_infinite_only_where_its_gate_failed(tmp_path):
    """JSON has no word for infinity: null with "fail" is that, and with any other outcome no number."""
    gate = {"place": "your model", "gate": "mean", "threshold": 8.0}
    kept = [gate | {"gate": one, "outcome": one, "statistic": None} for one in ("fail", "pass", "no power")]
    about = {"name": "mine", "about": {"processor": "a processor"}}
    (tmp_path / "certificate.json").write_text(json.dumps(about | {"verdicts": kept}))
    found = [one.value for one in claims.read(tmp_path / "certificate.json").quantities.values()]
    assert found[0] == math.inf and all(map(math.isnan, found[1:]))


def test_the_convergence_tests_record_what_is_read(recorded):
    """The fixture and the reader agree on names."""
    (name, found), *_ = claims.read(recorded).quantities.items()
    assert name.endswith("test_claim") and isinstance(found, claims.Claim)
    assert (found.value, found.bound, found.error, found.passed) == (0.25, 1.0, 0.125, True)
    assert replace(found, value=1.0).passed, "a claim stands at its bound"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """What pytest-benchmark writes of one claim, checked by the convergence tests' own fixture."""
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)  # pytest-benchmark keeps no report in a process of several
    (tmp_path / "conftest.py").write_text("from tests.convergence.conftest import verify\n")
    (tmp_path / "test_one.py").write_text(
        "from vaebench.gates.verdict import judge\n\n"
        "def test_claim(verify):\n"
        "    verify(lambda: judge('g', 'it holds', 0.25, 1.0, 0.0, {'standard_error': 0.125}))\n"
    )
    path = tmp_path / "report.json"
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--import-mode=importlib",
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
    ]
    code = pytest.main([*options, "-p", "no:xdist", f"--benchmark-json={path}", str(tmp_path)])
    assert code == 0
    return path


def run(directory, columns, seeds, experiment=None, diverged=(), steps=(0, 10)):
    directory.mkdir()
    last = pd.DataFrame({"step": steps[-1], "seed": list(seeds)} | columns)
    frame = pd.concat([last.assign(step=steps[0], **dict.fromkeys(columns, 99.0)), last])
    found = [{"seed": seed, "step": 5, "value": math.inf} for seed in diverged]
    metadata = {"experiment": experiment or {}, "diverged": found, "device": "cpu"}
    trajectory.save(trajectory.Trajectory(metadata, frame), directory / "trajectory.csv")
    return directory


def compare_runs(*directories):
    rows = runs.compare(*(runs.read(directory / "trajectory.csv") for directory in directories))
    return {row.name: row for row in rows}


def test_last_rows_are_compared_within_equal_seeds(tmp_path):
    before, after = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.1, 2.3, 3.1, 4.3])
    first = run(tmp_path / "a", {"bound": before}, range(4), {"alpha": 0})
    row = compare_runs(first, run(tmp_path / "b", {"bound": after}, range(4), {"alpha": 1}))
    found, gaps = row["bound"], after - before
    assert (found.before, found.after) == (before.mean(), after.mean())
    assert found.difference == pytest.approx(gaps.mean())
    assert found.error == pytest.approx(gaps.std(ddof=1) / 2)
    assert found.kind == "moved" and found.z == pytest.approx(gaps.mean() / found.error)
    assert (row["alpha"].before, row["alpha"].after, row["alpha"].kind) == (0, 1, "differs")


def test_other_seeds_are_independent(tmp_path):
    before, after = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.1, 2.3, 3.1])
    first = run(tmp_path / "a", {"bound": before}, range(4))
    found = compare_runs(first, run(tmp_path / "b", {"bound": after}, [0, 1, 7]))["bound"]
    assert found.error == pytest.approx(math.sqrt(before.var(ddof=1) / 4 + after.var(ddof=1) / 3))
    assert found.kind == "same" and "over 3 seeds; before" in found.note


def test_one_seed_has_the_error_that_its_row_records(tmp_path):
    first = run(tmp_path / "a", {"bound": [1.0], "bound_error": [0.3], "loss": [1.0]}, [0])
    rows = compare_runs(first, run(tmp_path / "b", {"bound": [1.9], "bound_error": [0.4], "loss": [1.9]}, [0]))
    assert "bound_error" not in rows
    assert rows["bound"].error == pytest.approx(0.5) and rows["bound"].kind == "same"
    assert rows["loss"].error is None and rows["loss"].kind == "unjudged"


def test_values_that_are_not_finite_are_left_out_and_said(tmp_path):
    first = run(tmp_path / "a", {"bound": [1.0, 2.0, 3.0]}, range(3))
    rows = compare_runs(first, run(tmp_path / "b", {"bound": [1.0, math.nan, 3.0]}, range(3), diverged=[1]))
    assert rows["bound"].after == 2.0 and "1 not finite" in rows["bound"].note
    assert (rows["diverged members"].kind, rows["diverged members"].note) == ("crossed", "seeds 1")


def test_a_shorter_run_says_so(tmp_path):
    first = run(tmp_path / "a", {"bound": [1.0, 2.0]}, range(2))
    row = compare_runs(first, run(tmp_path / "b", {"bound": [1.0, 2.0]}, range(2), steps=(0, 5)))["last step"]
    assert (row.before, row.after, row.kind) == (10, 5, "differs")


@pytest.mark.parametrize("path", sorted(HISTORY.glob("*/*-env-*.json")), ids=lambda path: path.name[:8])
def test_results_are_read_as_asv_reads_them(path):
    found, theirs = commits.read(path), Results.load(str(path))
    expected = {}
    for name in theirs.get_all_result_keys():
        params = theirs.get_result_params(name)
        names = [f"{name}({', '.join(case)})" if case else name for case in product(*params)]
        expected |= dict(zip(names, theirs.get_result_value(name, params), strict=True))
        stats = theirs.get_result_stats(name, params)
        for case, one in zip(names, stats, strict=True):
            assert found[case].interval == ((one["ci_99_a"], one["ci_99_b"]) if one else None)
    assert len(found) > 100
    np.testing.assert_equal({name: one.value for name, one in found.items()}, expected)


M = commits.Measured


@pytest.mark.parametrize(
    ("name", "before", "after", "kind"),
    [
        (FLOPS, M(1000.0), M(1002.0), "crossed"),
        (FLOPS, M(1000.0), M(900.0), "improved"),
        (f"{FLOPS}('pathwise', 8)", M(1000.0), M(1002.0), "crossed"),
        (FLOPS, M(1000.0), M(None), "crossed"),
        (FLOPS, M(1000.0), M(math.nan), "lost"),
        (FLOPS, M(None), M(1000.0), "appeared"),
        (FLOPS, M(math.nan), M(None), "same"),
        (FLOPS, M(1000.0, "1"), M(2000.0, "2"), "differs"),
        ("convergence.Sgd.track_flops_to_goal", M(1000.0), M(1002.0), "moved"),
        ("here/e: convergence.Sgd.track_gap", M(1000.0), M(1002.0), "moved"),
        ("here/e: models.Model.track_ops('a: b')", M(1000.0), M(1002.0), "crossed"),
        ("fleet.Fleet.track_ratio", M(0.06), M(0.11), "time"),
        ("estimators.Cost.track_variance", M(1.0), M(1.0005), "same"),
        ("estimators.Cost.time_step", M(1.0, interval=(0.9, 1.1)), M(1.15, interval=(1.05, 1.2)), "same"),
        ("estimators.Cost.time_step", M(1.0, interval=(0.9, 1.1)), M(1.3, interval=(1.2, 1.4)), "time"),
        ("estimators.Cost.time_step", M(1.0), M(None), "gone"),
    ],
)
def test_what_became_of_a_benchmark(name, before, after, kind):
    assert kinds(commits.compare({name: before}, {name: after})) == {name: kind}


def git(repository, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(repository), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Three commits, of which two were measured."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    for tag, flops in (("old", 1000), ("new", 1010), ("unmeasured", None)):
        git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", tag)
        git(tmp_path, "tag", tag)
        if flops:
            keep(tmp_path, tag, "here", flops)
    return tmp_path


def keep(repository, tag, machine, flops):
    commit = git(repository, "rev-parse", tag)
    found = Results({"machine": machine}, {}, commit, 0, "3.11", "env", {})
    answer = type("Answer", (), {"result": [flops], "samples": [None], "number": [None], "profile": None})
    answer.stderr = answer.errcode = None
    found.add_result({"name": FLOPS, "version": "1", "params": [["'pathwise'"]]}, answer)
    found.save(str(repository / commits.HISTORY))


def test_commits_are_compared_wherever_both_were_measured(repository):
    (row,) = compare("old", "new", repository)
    assert (row.name, row.before, row.after, row.kind) == (f"{FLOPS}('pathwise')", 1000, 1010, "crossed")
    keep(repository, "old", "there", 5)
    keep(repository, "new", "there", 5)
    assert kinds(compare("old", "new", repository / "reports")) == {
        f"here/env: {FLOPS}('pathwise')": "crossed",
        f"there/env: {FLOPS}('pathwise')": "same",
    }


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("old", "no-such", "'no-such' is no file, no directory with a trajectory.csv, and no commit"),
        ("old", "--version", "'--version' is no file"),
        ("old", "unmeasured", "unmeasured .* has no results in reports/history"),
        ("old", "elsewhere", "not measured on one machine"),
        ("old", "report.json", "old is a commit and report.json is a report: compare two of one kind"),
        ("report.json", "cut.json", "cut.json is not JSON, or is cut short"),
        ("report.json", "binary.json", "binary.json is not JSON"),
        ("report.json", "other.json", "other.json is no report of pytest-benchmark"),
        ("report.json", "list.json", "list.json is no report of pytest-benchmark"),
        ("report.json", "empty.json", "report.json and empty.json have no measurement in common"),
        ("run", "cut.csv", "cut.csv was cut short or changed"),
        ("run", "binary.csv", "binary.csv is not a trajectory"),
        ("run", "headless.csv", "headless.csv is not a trajectory"),
        ("run", "unseeded.csv", "unseeded.csv has no rows by step and seed"),
    ],
)
def test_what_cannot_be_compared_is_refused(repository, monkeypatch, before, after, message):
    monkeypatch.chdir(repository)
    plant(repository)
    with pytest.raises(ValueError, match=message):
        compare(before, after, repository)


def plant(place):
    """Files that can be compared, and files that cannot."""
    git(place, "commit", "--quiet", "--allow-empty", "--message", "measured elsewhere")
    git(place, "tag", "elsewhere")
    keep(place, "elsewhere", "there", 5)
    text = report(place / "report.json", claim("stands", 0.5)).read_text()
    (place / "cut.json").write_text(text[:-5])
    (place / "other.json").write_text('{"machine_info": {}}')
    (place / "list.json").write_text("[]")
    report(place / "empty.json")
    (place / "binary.json").write_bytes(b"\xff\xfe\x00")
    (place / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (place / "headless.csv").write_text('# {"format": 1}\n')
    run(place / "run", {"bound": [1.0, 2.0]}, range(2))
    (place / "cut.csv").write_text((place / "run" / "trajectory.csv").read_text()[:-5])
    trajectory.save(trajectory.Trajectory({}, pd.DataFrame({"bound": [1.0]})), place / "unseeded.csv")


def test_results_of_another_format_are_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"version": 3}')
    with pytest.raises(ValueError, match=r"results.json has asv's format 3, and only 2 can be read"):
        commits.read(path)
    path.write_text('{"version": 2}')
    with pytest.raises(ValueError, match=r"results.json is no file of asv's results"):
        commits.read(path)


def invoke(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_what_crossed_comes_first_and_exits_with_1(reports):
    result = invoke(*reports)
    assert result.exit_code == 1
    lines = [line for line in result.stdout.splitlines() if line.split()[:1] in (["crossed"], ["moved"], ["same"])]
    assert [line.split()[0] for line in lines] == ["crossed"] * 3 + ["moved"]
    assert "3 crossed, 1 lost, 1 recovered, 1 improved, 1 moved" in result.stdout and "--all shows" in result.stdout
    assert "same" in invoke(*reports, "--all").stdout.split()


def test_equal_reports_exit_with_0(reports):
    result = invoke(reports[0], reports[0])
    assert result.exit_code == 0
    assert result.stdout == "20 compared: 20 same (--all shows what is the same).\n"


def test_json_is_strict_and_holds_every_row(reports):
    result = invoke(*reports, "--json")
    rows = json.loads(result.stdout, parse_constant=pytest.fail)
    assert result.exit_code == 1
    heals = next(row for row in rows if row["name"] == "heals")
    assert (heals["before"], heals["after"], heals["kind"]) == (None, 0.9, "recovered")
    moves = next(row for row in rows if row["name"] == "moves")
    assert moves["difference"] == pytest.approx(0.11) and moves["error"] == pytest.approx(0.05)


def test_the_comment_has_what_got_worse_first_and_folds_what_did_not(reports):
    result = invoke(*reports, "--markdown")
    assert result.exit_code == 1 and result.stdout.startswith("### 23 compared: 3 crossed, 1 lost, 1 recovered, ")
    titles = ("**Regressions: 4**", "**Improvements: 2**", "**Moved: 1**", "Not judged: 6", "Unchanged: 10")
    places = [result.stdout.index(title) for title in titles]
    rows = ("crossed | breaks | 0.9 | 1.1", "improved | costs: ops | 10 | 9", "moved | moves | 0.5 | 0.61")
    inside = [result.stdout.index(row) for row in rows]
    assert sorted(places + inside) == [places[0], inside[0], places[1], inside[1], places[2], inside[2], *places[3:]]
    assert result.stdout.index("<details>") > inside[2] and result.stdout.count("</details>") == 2
    assert sorted(kind for kinds in SECTIONS.values() for kind in kinds) == sorted(change.KINDS)


def test_names_with_brackets_are_printed_whole(tmp_path):
    before = report(tmp_path / "a.json", claim("t[law]", 0.5))
    assert "t[law]" in invoke(before, before, "--all").stdout


def test_a_refusal_is_one_sentence_and_exit_2(reports):
    result = invoke(reports[0], "no-such-thing")
    assert result.exit_code == 2
    assert result.stderr.startswith("vaebench compare: 'no-such-thing' is no file") and result.stderr.count("\n") == 1


def one_against(tmp_path, before, after):
    first, second = report(tmp_path / "x.json", *before), report(tmp_path / "y.json", *after)
    return {row.name: row for row in claims.compare(claims.read(first), claims.read(second))}


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        ([claim("c", math.nan)], "lost"),
        ([claim("c", None)], "lost"),
        ([claim("c", 0.5, math.inf)], "lost"),
        ([claim("c", 0.5, math.nan)], "lost"),
        ([claim("c", 0.5, 2.01)], "lost"),
        ([claim("c", 0.5, 1.99)], "same"),
        ([claim("c", 0.5, -math.inf)], "crossed"),
        ([benchmark("c", statistic=0.5)], "lost"),
        ([benchmark("other")], "lost"),
    ],
)
def test_a_claim_that_is_no_claim_any_more_is_lost(tmp_path, after, kind):
    assert one_against(tmp_path, [claim("c", 0.5)], after)["c"].kind == kind


def test_an_exact_counter_that_is_gone_is_lost_and_a_time_is_not(tmp_path):
    rows = one_against(tmp_path, [benchmark("b", flops=3, ops=4, speed=5)], [benchmark("b", ops=4)])
    assert (rows["b: flops"].kind, rows["b: ops"].kind, rows["b: speed"].kind) == ("lost", "same", "gone")


def test_what_is_lost_fails_unless_it_is_said_to_be_gone(reports, tmp_path):
    before = report(tmp_path / "x.json", claim("old::a", 0.5), claim("old::b", 0.5), claim("kept", 0.5))
    after = report(tmp_path / "y.json", claim("kept", 0.5))
    assert invoke(before, after).exit_code == 1
    assert invoke(before, after, "--gone", "old::a").exit_code == 1
    assert invoke(before, after, "--gone", "old::*").exit_code == 0
    mistaken = invoke(before, after, "--gone", "odl::*")
    assert mistaken.exit_code == 2 and "Nothing called 'odl::*' was lost; lost: old::a, old::b" in mistaken.stderr


def test_a_name_that_a_report_holds_twice_is_refused(tmp_path):
    path = report(tmp_path / "x.json", claim("c", 0.5), claim("c", 0.7))
    with pytest.raises(ValueError, match="holds 'c' twice"):
        claims.read(path)


def test_a_mean_that_becomes_nan_is_lost(tmp_path):
    first = run(tmp_path / "a", {"bound": [1.0, 2.0]}, range(2))
    assert compare_runs(first, run(tmp_path / "b", {"bound": [math.nan, math.nan]}, range(2)))["bound"].kind == "lost"


def test_one_seed_is_not_judged_and_that_is_said(tmp_path):
    first = run(tmp_path / "a", {"bound": [1.0], "same": [1.0]}, [0])
    rows = compare_runs(first, run(tmp_path / "b", {"bound": [9.0], "same": [1.0]}, [0]))
    assert (rows["bound"].kind, rows["same"].kind) == ("unjudged", "same")
    assert "one seed cannot tell a change from chance" in rows["bound"].note


def test_data_that_differ_are_a_row(tmp_path):
    directories = [run(tmp_path / name, {"bound": [1.0, 2.0]}, range(2)) for name in "ab"]
    for place, directory in enumerate(directories):
        found = trajectory.load(directory / "trajectory.csv")
        digest = {"data": {"train": f"{place}" * 64}}
        trajectory.save(trajectory.Trajectory(found.metadata | digest, found.frame), directory / "trajectory.csv")
    row = compare_runs(*directories)["data.train"]
    assert (row.before, row.after, row.kind) == ("0" * 64, "1" * 64, "differs")
