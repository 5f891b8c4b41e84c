"""`make compare`: its statistics on planted timings, its processes on a trivial benchmark, its trials and refusals."""

import json
import subprocess
import sys

import numpy as np
import pytest
from asv.util import UserError

from benchmarks.harness.compare import __main__ as command
from benchmarks.harness.compare import curve, job, page, trials
from benchmarks.harness.compare.cases import CASES, QUANTUM, Control
from benchmarks.harness.compare.interval import control_variate, interval, subsets
from vaebench.support.comments import cell

NAMES = [case.name for case in CASES]
PAIRS, ROUNDS = job.LAUNCHES * job.PAIRS, job.ROUNDS


def timings(rng, slowdown=0.0, drift=0.0, process=0.015, sample=0.02):
    """Seconds (P, R, 4): processes that differ, samples that differ, and a machine whose speed drifts for all."""
    logs = sample * rng.standard_normal((PAIRS, ROUNDS, 4)) - 3
    logs[..., [0, 2]] += process * rng.standard_normal((PAIRS, 1, 2))
    logs[..., 2] += np.log1p(slowdown)
    logs += drift * np.repeat(rng.standard_normal((PAIRS, ROUNDS, 2)), 2, axis=2)
    return np.exp(logs)


def pairs(rng, **planted):
    """What the launches print, `planted` slowdowns by number of the benchmark."""
    found = [timings(rng, planted.get(f"case_{number}", 0.0)).tolist() for number in range(len(CASES))]
    return [{"first": "base", "cases": {name: found[n][pair] for n, name in enumerate(NAMES)}} for pair in range(PAIRS)]


def test_the_ends_are_means_of_subsets():
    assert interval(np.array([1.0, 2.0, 4.0]), 1 / 8) == (1.0, 4.0)
    assert interval(np.array([1.0, 2.0, 4.0]), 2 / 8) == (1.5, 3.0)
    assert interval(np.array([1.0, 2.0, 4.0]), 1 / 9) == (-np.inf, np.inf)


@pytest.mark.parametrize("size", [3, 20])
def test_subsets_are_not_empty_and_their_weights_sum_to_one(size):
    assert np.allclose(subsets(size).sum(1), 1)


@pytest.mark.parametrize("law", ["standard_normal", "standard_cauchy"])
def test_the_interval_errs_as_often_as_it_says(law):
    rng, error, draws = np.random.default_rng(0), 1 / 16, 4000
    ends = np.array([interval(getattr(rng, law)(8), error) for _ in range(draws)])
    slack = 4 * np.sqrt(error * (1 - error) / draws)
    assert abs((ends[:, 0] > 0).mean() - error) < slack
    assert abs((ends[:, 1] < 0).mean() - error) < slack


def test_the_control_takes_a_drift_out_and_adds_no_noise_without_one():
    rng = np.random.default_rng(0)
    drifting, share = control_variate(timings(rng, drift=0.2))
    assert share > 0.9
    assert drifting.std() < 0.04
    _, share = control_variate(timings(rng))
    assert share < 0.2


def test_exchanging_the_sides_of_a_pair_changes_its_sign_alone():
    rounds = timings(np.random.default_rng(0), slowdown=0.05)
    exchanged = rounds.copy()
    exchanged[3] = exchanged[3][:, [2, 3, 0, 1]]
    (before, share), (after, same) = control_variate(rounds), control_variate(exchanged)
    assert share == pytest.approx(same)
    assert after[3] == pytest.approx(-before[3])
    assert np.delete(after, 3) == pytest.approx(np.delete(before, 3))


def test_unchanged_code_is_not_flagged():
    rng = np.random.default_rng(0)
    flagged = sum(any(finding.verdict != "same" for finding in job.judge(pairs(rng))) for _ in range(200))
    assert flagged <= 2


def test_a_planted_slowdown_is_found_where_it_is():
    rng = np.random.default_rng(0)
    found = [[finding.verdict for finding in job.judge(pairs(rng, case_1=1 / QUANTUM))] for _ in range(40)]
    assert sum(verdicts[1] == "slower" for verdicts in found) >= 38
    assert all(verdicts[0] == verdicts[2] == verdicts[3] == "same" for verdicts in found)


def test_a_gain_is_called_faster():
    assert job.judge(pairs(np.random.default_rng(0), case_2=-0.1))[2].verdict == "faster"


@pytest.mark.parametrize(
    ("reason", "verdict", "status"),
    [
        ("base: NotImplementedError: this commit has no vaebench.training.fleet", "n/a", 0),
        ("base: RuntimeError: broken", "n/a", 0),
        ("head: NotImplementedError: this commit has no vaebench.training.fleet", "n/a", 0),
        ("head: RuntimeError: broken", "fails", 1),
    ],
)
def test_a_benchmark_that_one_commit_lacks(reason, verdict, status, capsys):
    found = pairs(np.random.default_rng(0))
    for pair in found:
        pair["cases"][NAMES[0]] = reason
    findings = job.judge(found)
    assert [finding.verdict for finding in findings] == [verdict, "same", "same", "same"]
    assert command.report(findings) == status
    assert f"{NAMES[0]}: {reason}" in capsys.readouterr().out


def test_the_exit_status_says_slower_or_nothing_compared(capsys):
    slower = job.judge(pairs(np.random.default_rng(0), case_0=0.1))
    assert command.report(slower) == 1
    assert "slower" in capsys.readouterr().out
    assert command.report([job.without(name, "base: NotImplementedError: none") for name in NAMES]) == 2


def test_the_comment_has_what_got_slower_first_and_folds_what_did_not():
    found = pairs(np.random.default_rng(0), case_1=0.1, case_2=-0.1)
    for pair in found:
        pair["cases"][NAMES[3]] = "head: RuntimeError: broken"
    findings = job.judge(found)
    text = command.markdown(findings)
    assert text.startswith("### Times, HEAD and BASE in turn: 2 of 4 benchmarks got slower\n")
    slower, better, same = (text.index(word) for word in ("**Regressions: 2**", "**Improvements: 1**", "Unchanged: 1"))
    assert slower < text.index("RuntimeError: broken") < better < text.index("<details>") < same
    assert cell(findings[1].span) in text and cell(findings[0].span) in text[same:]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_benchmark_runs(case):
    assert case.calls % QUANTUM == 0
    case.prepare()()


def test_the_control_runs():
    Control()()


LAUNCH = """
import sys
from benchmarks.harness.compare import launch

class Trivial:
    name, calls = "trivial", 20
    def prepare(self):
        import vaebench
        return lambda: sum(range(vaebench.WORK))

class Missing:
    name = "missing"
    def prepare(self):
        from vaebench import absent

launch.CASES, launch.PRELOADED = (Trivial(), Missing()), ()
launch.main(*sys.argv[1:])
"""


def test_each_process_times_the_code_of_its_own_folder(tmp_path):
    for side, work in (("base", 20_000), ("head", 60_000)):
        (tmp_path / side / "vaebench").mkdir(parents=True)
        (tmp_path / side / "vaebench" / "__init__.py").write_text(f"WORK = {work}\n")
    command = [sys.executable, "-c", LAUNCH, str(tmp_path / "base"), str(tmp_path / "head"), "2", "4", "0"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2
    for found in map(json.loads, lines):
        rounds = np.array(found["cases"]["trivial"])
        assert rounds.shape == (4, 4)
        assert 2 < np.median(rounds[:, 2] / rounds[:, 0]) < 4.5
        assert found["cases"]["missing"].startswith("base: ImportError: cannot import name 'absent'")


def trial(kind, seed):
    slowdowns = {f"case_{n}": 1 / QUANTUM for n in range(len(CASES))} if kind == "planted" else {}
    findings = [job.asdict(finding) for finding in job.judge(pairs(np.random.default_rng(seed), **slowdowns))]
    times = {"design": job.DESIGN, "minutes": 1.5, "load": [2.0, 2.0, 2.0], "load after": [2.5, 2.0, 2.0]}
    return {
        "kind": kind,
        "machine": {"machine": "one-2cores", "cpu": "one", "num_cpu": "2"},
        "findings": findings,
    } | times


def test_trials_go_on_where_they_stopped(tmp_path, monkeypatch):
    path, made = tmp_path / "compare" / "trials.jsonl", []

    def compare(_base, _head, planted, _progress):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(planted)
        return trial("planted" if planted else "null", len(made))

    monkeypatch.setattr(trials, "compare", compare)
    monkeypatch.setattr(trials, "export", lambda commit, folder: folder)
    monkeypatch.setattr(trials.gate, "commits", lambda base: ("0" * 40, "0" * 40))
    with pytest.raises(KeyboardInterrupt):
        trials.run(3, path)
    kept = path.read_text()
    assert [one["kind"] for one in trials.read(path)] == ["null", "planted", "null"]
    made.clear()
    trials.run(3, path)
    assert made == [True, False, True]
    assert path.read_text().startswith(kept)
    made.clear()
    monkeypatch.setattr(trials, "DESIGN", job.DESIGN | {"rounds": 1})
    with pytest.raises(KeyboardInterrupt):
        trials.run(3, path)
    assert made == [False, True, False]  # of another design, none are known


def test_the_curve_rises_from_no_alarm_to_certainty():
    made = [trial(kind, seed) for seed in range(4) for kind in trials.KINDS]
    points = curve.curve(made, sizes=(PAIRS,), draws=60)
    of_first = [point.probability for point in points if point.benchmark == NAMES[0]]
    assert of_first == sorted(of_first) and of_first[0] <= 0.05 and of_first[-1] == 1
    assert 1 < curve.smallest(points, PAIRS, NAMES[0]) < 6
    assert next(point for point in points if point.benchmark == "any").probability <= 0.05


def test_the_page_counts_the_trials(monkeypatch):
    monkeypatch.setattr(page, "SIZES", (PAIRS,))
    monkeypatch.setattr(page, "DRAWS", 40)
    made = [trial(kind, seed) for seed in range(3) for kind in trials.KINDS]
    points = curve.curve(made, sizes=(PAIRS,), draws=40)
    written = page.page(made, points)
    assert "| unchanged: any benchmark called slower | 0 of 3 [0.000, 0.708] |  |" in written
    assert "| planted: every benchmark called slower | 3 of 3 [0.292, 1.000] |  |" in written
    assert page.figure(made, points).startswith(b"<?xml")
    assert page.table(points).startswith("pairs,slowdown,benchmark,probability\n40,0,any,")


def test_every_machine_has_its_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "RECORDS", tmp_path)
    assert page.main() == 2 and "There are no trials" in capsys.readouterr().err
    monkeypatch.setattr(page, "SIZES", (PAIRS,))
    monkeypatch.setattr(page, "curve", lambda made: curve.curve(made, sizes=(PAIRS,), draws=40))
    monkeypatch.setattr(page, "DRAWS", 40)
    for name, seeds in (("one-2cores", 3), ("other-2cores", 2), ("begun", 0)):
        made = [trial(kind, seed) for seed in range(seeds) for kind in trials.KINDS] or [trial("null", 0)]
        for one in made:
            one["machine"] = one["machine"] | {"machine": name}
        trials.keep(made, tmp_path / name / trials.TRIALS)
    assert page.main() == 0
    index = (tmp_path / "README.md").read_text()
    for name, seeds in (("one-2cores", 3), ("other-2cores", 2)):
        assert f"]({name}/README.md) | 40 | 0 of {seeds} [" in index and f"{seeds} of {seeds} [" in index
        assert {"README.md", "curve.csv", "curve.svg"} < {path.name for path in (tmp_path / name).iterdir()}
    assert "begun" not in index


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One commit without a vaebench."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *arguments], check=True)
    return tmp_path


def test_a_commit_without_the_library_is_refused(repository, capsys):
    assert command.main(["HEAD"]) == 2
    assert "holds no vaebench/" in capsys.readouterr().err


def test_changes_that_are_not_in_head_are_refused(repository, capsys):
    (repository / "pyproject.toml").write_text("changed = 1\n")
    assert command.main(["HEAD"]) == 2
    assert "commit or stash" in capsys.readouterr().err


def test_what_is_no_commit_is_refused(capsys):
    assert command.main(["no-such-commit"]) == 2
    assert (
        capsys.readouterr().err == "'no-such-commit' is not a commit of this repository: name one, as in BASE=main.\n"
    )


def test_an_interruption_is_one_sentence(monkeypatch, capsys):
    def interrupted(base):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.gate, "commits", interrupted)
    assert command.main(["HEAD"]) == 130
    assert "Stopped before a verdict" in capsys.readouterr().err


def test_a_process_that_ends_early_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(job.sys, "executable", "false")
    with pytest.raises(UserError, match="ended early"):
        list(job.pairs(tmp_path, tmp_path))


def test_all_machines_are_summed_up_in_a_sentence():
    def trial(kind, *verdicts):
        return {"kind": kind, "findings": [{"verdict": verdict} for verdict in verdicts]}

    first = [trial("null", "same", "same"), trial("null", "same", "faster"), trial("planted", "slower", "slower")]
    second = [trial("null", "same", "same"), trial("planted", "slower", "same")]
    assert page.totals([first, second]) == (
        "Unchanged code was called slower or faster in 1 of 3 comparisons; a planted slowdown of 5 % was found in "
        "every benchmark in 1 of 2."
    )
