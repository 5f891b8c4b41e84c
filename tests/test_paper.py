"""The paper's studies run from files to the page, on the formats of CIFAR-100 and CelebA, for twenty steps."""

import pkgutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmarks
from benchmarks.paper import page
from benchmarks.paper.rehearsal import (
    ROWS,
    STEPS,
    STUDIES,
    Rehearsal,
    Share,
    rehearse,
    shortened,
    studies,
    write_files,
)
from benchmarks.paper.timing import Stopwatch, Timing, timed
from vaebench.data import celeba, cifar100
from vaebench.experiments.experiment import ComponentSpec, Experiment, Measures
from vaebench.experiments.presets import preset
from vaebench.experiments.running import Progress
from vaebench.experiments.trajectory import Trajectory
from vaebench.gradients import Objective
from vaebench.training.schedules import inverse_sqrt

SMALL = Share(256, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_files(folder)
    return folder


def test_asv_does_not_see_it():
    assert "paper" not in {module.name for module in pkgutil.iter_modules(benchmarks.__path__)}


def test_the_files_are_read_as_the_real_ones_are(files):
    for split in ("train", "test"):
        assert cifar100(split, files).shape == (ROWS, 3, 32, 32)
        assert celeba(split, files).shape == (ROWS, 3, 64, 64)
    assert cifar100("train", files).float().std() > 20


def test_a_shortened_study_keeps_all_but_its_size():
    for name, scale in studies():
        for short, whole in zip(shortened(preset(name, scale), SMALL).arms, preset(name, scale).arms, strict=True):
            small = short.experiment
            assert small.steps == STEPS and small.seeds == (0,)
            assert small.batch_size == max(1, whole.experiment.batch_size // 256)
            size = {
                name: getattr(whole.experiment, name) for name in ("steps", "seeds", "batch_size", "measures", "device")
            }
            assert replace(small, **size) == whole.experiment


def end_to_end(study, files):
    path, found, timings = rehearse(study, SMALL, files)
    text = path.read_text("utf-8")
    assert timings.keys() == found.keys() and all(one.step > 0 and one.steps == 17 for one in timings.values())
    for arm in study.arms:
        assert found[arm.label].frame["step"].max() == STEPS
        assert np.isfinite(found[arm.label].frame["grad_sq"]).all()
        assert f">{arm.label}</h2>" in text
    assert len(pd.read_csv(path.parent / "tables" / "arms.csv")) == len(study.arms)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), list(studies()))
def test_every_study_runs_end_to_end(name, scale, files):
    end_to_end(preset(name, scale), files)


def told(watch, clocks, moments, prepared=0.0):
    """Tell a stopwatch of steps 1, 2, ... at these moments of both clocks."""
    clocks[:] = [prepared, prepared]
    watch(Progress("", 0, len(moments), "decoding"))
    for number, moment in enumerate(moments, 1):
        clocks[:] = moment
        watch(Progress("", number, len(moments)))


def test_a_steps_seconds_are_those_of_steps_without_compilation_and_without_probes():
    clocks = [0.0, 0.0]
    watch = Stopwatch(lambda: clocks[0], lambda: clocks[1])
    # the first step compiles for 9 s, steps 1 and 4 are followed by 5 s of probes; a step is 2 s, or 3 s on the wall
    own, wall = [0, 16, 18, 20, 27, 29], [0, 17, 20, 23, 31, 34]
    told(watch, clocks, list(zip(own, wall, strict=True)))
    found = watch.timing((0, 1, 4, 6), seconds=9 + 6 * 3)
    assert found == Timing(2, 3, 9)


def test_a_run_that_resumed_times_only_steps_that_it_saw_both_ends_of():
    clocks = [0.0, 0.0]
    watch = Stopwatch(lambda: clocks[0], lambda: clocks[1])
    for number, moment in ((2, 0.0), (3, 1.0), (7, 50.0), (8, 51.0)):
        clocks[:] = [moment, moment]
        watch(Progress("", number, 8))
    assert watch.timing((0, 8), 8.0) == Timing(1, 2, 0)


def test_what_was_timed_is_read_and_a_result_that_nobody_timed_is_made_again(tmp_path):
    model = ComponentSpec("mlp_vae", {"hidden": [4], "latents": 2})
    experiment = Experiment(
        ComponentSpec("digits"), model, Objective(), "pathwise", ComponentSpec("adam"), inverse_sqrt(0.01), 20, 4,
        seeds=(0,), measures=Measures(1, 4, 2, 4, 5, 1), probes=("gradient",), dtype="float64",
    )  # fmt: skip
    recorded, timing = timed(experiment, tmp_path)
    assert timing.steps == 17 and timing.step > 0 and timing.once >= 0
    assert timed(experiment, tmp_path)[1] == timing
    (tmp_path / "timings" / f"{experiment.hash}.json").unlink()
    again, other = timed(experiment, tmp_path)
    assert other.steps == 17 and again.frame.equals(recorded.frame)


def rehearsed(study, share, step, taken="compiled", load=2.5):
    """A rehearsal that nobody ran."""
    found, timings = {}, {}
    for arm in shortened(study, share).arms:
        metadata = {"experiment": arm.experiment.to_dict(), "device": "cpu (x86_64)", "threads": 1, "load": load}
        metadata |= {"commit": "abc", "steps": taken, "cost": {"seconds per step": 0.5, "GFLOP per gradient": 0.5}}
        found[arm.label] = Trajectory(metadata, pd.DataFrame())
        timings[arm.label] = Timing(step, 17, 9.0)
    return Rehearsal(Path(), found, timings)


def test_the_page_says_how_long_on_what(tmp_path):
    study, share = preset("samples", "paper-celeba"), Share(64, 1)
    for _ in range(2):
        page.keep(tmp_path / "steps.csv", page.rows(study, share, rehearsed(study, share, 0.01)))
    table = pd.read_csv(tmp_path / "steps.csv")
    assert table["arm"].tolist() == ["K=1", "K=5", "K=10"]
    # 0.01 s for 4 of 256 examples and 1 of 5 runs are 3.2 s a step, and 63,600 steps of it 2.356 days
    assert table["whole, seconds per step"].tolist() == [3.2] * 3 and table["days"].tolist() == [2.356] * 3
    page.write(tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert " cores, 1 used**" in text
    assert "1 of the paper's 7 studies, 3 different arms, take 7 days by one kind of step sizes" in text
    assert "7 of them on CelebA, 64x64" in text and "On any GPU:\nunknown" in text
    assert "| CelebA, 64x64 | samples | 3 | B / 64, 1 of 5 runs | 0.01 to 0.01 | 9 to 9 | 3.2 to 3.2 | 7.1 |" in text
    assert "up to 2.5; seconds of a step are the processor's own, of 17 steps." in text and "Not compiled" not in text


def test_an_arm_that_two_studies_share_is_counted_once(tmp_path):
    share = Share(64, 1)
    for name in STUDIES["paper"]:
        study = preset(name, "paper")
        page.keep(tmp_path / "steps.csv", page.rows(study, share, rehearsed(study, share, 0.01)))
    page.write(tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    # 5 + 5 + 3 + 5 + 5 arms, of which ReLU, B=256, beta=1 and Adam are one
    assert "5 of the paper's 7 studies, 20 different arms" in text


def test_steps_that_could_not_be_compiled_are_named(tmp_path):
    study, share = preset("samples", "paper-celeba"), Share(64, 1)
    page.keep(tmp_path / "steps.csv", page.rows(study, share, rehearsed(study, share, 0.01, "eager: no compiler")))
    page.write(tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "Not compiled, for a reason that the table of arms gives: samples K=1, samples K=5, samples K=10." in text
