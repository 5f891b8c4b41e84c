"""Reports: whole without a network, the same bytes every time, honest about what failed."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from vaebench.experiments import Measures, run
from vaebench.experiments.experiment import Arm, grid
from vaebench.experiments.presets import SMOKE
from vaebench.experiments.studies import Study
from vaebench.experiments.trajectory import Trajectory
from vaebench.gates.verdict import judge
from vaebench.report import write, write_index
from vaebench.report.summarising import summarise

BASE = replace(SMOKE.base, steps=20, measures=Measures(4, 4, 32, 50, 20, 10))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    study = Study("sizes", "default", "Is it so?", "B", grid(BASE, B=[8, 16]))
    found = {arm.hash: run(arm.experiment, tmp_path_factory.mktemp("results")) for arm in study.arms}
    return study, found, {name: summarise(one) for name, one in found.items()}


@pytest.fixture(scope="module")
def made(recorded, tmp_path_factory):
    """The report's directory and its page."""
    directory = tmp_path_factory.mktemp("report") / "a"
    return directory, report(recorded, directory)


def report(recorded, directory, **changed):
    study, found, summaries = recorded
    summaries = changed.pop("summaries", summaries)
    return write(changed.pop("study", study), changed.pop("found", found), summaries, directory).read_text("utf-8")


def everything(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_page_needs_nothing_but_itself(made):
    _, page = made
    addresses = set(re.findall(r"""(?:https?:)?//[^\s"'<>)]+""", page))
    assert {one for one in addresses if not one.startswith(("http://www.w3.org/", "https://www.w3.org/"))} == set()
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=[\"'](?!data:)", page)


def test_the_page_says_what_was_asked_what_came_out_and_what_ran_it(recorded, made):
    _, page = made
    study, found, _ = recorded
    for text in (
        "Is it so?",
        "2 of 4 checks passed, 2 without power",
        "is lowest with",
        "B=8",
        "B=16",
        "vaebench run sizes",
    ):
        assert text in page
    for arm in study.arms:
        assert arm.hash in page
        assert str(found[arm.hash].metadata["versions"]["torch"]) in page


def test_every_number_is_in_the_tables(recorded, made):
    directory, _ = made
    arms = (directory / "tables" / "arms.csv").read_text("utf-8")
    for one in recorded[2].values():
        assert f"{one.final['T_n'].value:.10g}" in arms
    assert len(list((directory / "tables").iterdir())) == 3
    assert len(list((directory / "figures").glob("*.svg"))) > 4
    assert len(json.loads((directory / "experiments.json").read_text("utf-8"))["arms"]) == 2


def test_the_same_results_make_the_same_bytes(recorded, made, tmp_path):
    study, found, _ = recorded
    report((study, found, {name: summarise(one) for name, one in found.items()}), tmp_path / "b")
    assert everything(made[0]) == everything(tmp_path / "b")
    assert sum(map(len, everything(tmp_path / "b").values())) < 10**6


def changed_columns(one: Trajectory, change) -> Trajectory:
    frame = one.frame.copy()
    change(frame)
    return Trajectory(json.loads(json.dumps(one.metadata)), frame)


@pytest.fixture(scope="module")
def troubled(recorded, tmp_path_factory):
    """A page of a hostile question and label, a check that fails and an estimate below zero."""
    study, found, summaries = recorded

    def sink(frame):
        frame.loc[frame["step"] == 20, "grad_sq"] = -1.0

    first = study.arms[0].hash
    sunk = changed_columns(found[first], sink)
    bad = judge("rate", "T_n does not grow", 9.0, 7.0, 1e-3, {"seeds": 3})
    failing = replace(summarise(sunk), verdicts=(*summaries[first].verdicts[:1], bad))
    arms = (Arm("<script>alert(1)</script> $x_", study.arms[0].experiment), study.arms[1])
    changes = {
        "study": replace(study, question="<b>?", arms=arms),
        "found": found | {first: sunk},
        "summaries": summaries | {first: failing},
    }
    return report(recorded, tmp_path_factory.mktemp("troubled") / "a", **changes)


def test_a_failed_check_is_said_in_words(troubled):
    assert "2 of 4 checks passed, 1 FAILED, 1 without power" in troubled
    assert "FAILED" in troubled
    assert "at most 7 allowed" in troubled


def test_a_hostile_label_is_only_text(troubled):
    assert "<script>alert" not in troubled
    assert "<b>?" not in troubled


def test_negative_estimates_are_drawn_around_and_counted(troubled):
    assert "1 estimates below zero" in troubled


def test_members_and_arms_that_diverged_are_said(recorded, tmp_path):
    study, found, summaries = recorded
    one, other = (arm.hash for arm in study.arms)

    def lose(frame):
        frame.loc[:, "grad_sq"] = np.nan

    lost = changed_columns(found[one], lose)
    lost.metadata["diverged"] = [{"seed": seed, "step": 3, "value": float("inf")} for seed in (0, 1, 2)]
    page = report(recorded, tmp_path / "a", found=found | {one: lost}, summaries={other: summaries[other]})
    assert "3 of 3 seeds diverged" in page
    assert "every seed diverged" in page


def test_a_report_that_cannot_be_written_leaves_the_one_before(recorded, made, tmp_path, monkeypatch):
    shutil.copytree(made[0], tmp_path / "a")
    before = everything(tmp_path / "a")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        report(recorded, tmp_path / "a")
    monkeypatch.undo()
    assert everything(tmp_path / "a") == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_another_directory_is_not_overwritten(recorded, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds something other than a report"):
        report(recorded, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_an_arm_that_was_not_run_is_refused(recorded, tmp_path):
    with pytest.raises(ValueError, match="has no trajectory"):
        report(recorded, tmp_path / "a", found={})


def test_the_index_lists_every_report(made, tmp_path):
    for name in ("first", "second"):
        shutil.copytree(made[0], tmp_path / name)
    index = write_index(tmp_path).read_text("utf-8")
    assert 'href="first/index.html"' in index
    assert 'href="second/index.html"' in index
    assert "2 of 4 checks passed, 2 without power" in index


def test_a_damaged_report_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report.json").write_text("{")
    assert "a/report.json is no report of this vaebench" in write_index(tmp_path).read_text("utf-8")
