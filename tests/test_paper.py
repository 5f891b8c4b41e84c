"""The paper's studies run from files to the page, on the formats of CIFAR-100 and CelebA, for twenty steps."""

import pkgutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import benchmarks
from benchmarks.paper import page
from benchmarks.paper.rehearsal import ROWS, STEPS, Share, rehearse, shortened, studies, write_files
from vaebench.data import celeba, cifar100
from vaebench.experiments.presets import preset
from vaebench.experiments.trajectory import Trajectory

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
    path, found = rehearse(study, SMALL, files)
    text = path.read_text("utf-8")
    for arm in study.arms:
        assert found[arm.label].frame["step"].max() == STEPS
        assert np.isfinite(found[arm.label].frame["grad_sq"]).all()
        assert f">{arm.label}</h2>" in text
    assert len(pd.read_csv(path.parent / "tables" / "arms.csv")) == len(study.arms)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), list(studies()))
def test_every_study_runs_end_to_end(name, scale, files):
    end_to_end(preset(name, scale), files)


def test_the_page_says_how_long_on_what(tmp_path):
    study, share = preset("samples", "paper-celeba"), Share(64, 1)
    found = {}
    for arm in shortened(study, share).arms:
        metadata = {"experiment": arm.experiment.to_dict(), "device": "cpu (x86_64)", "threads": 1, "load": 2.5}
        metadata |= {"commit": "abc", "cost": {"seconds per step": 0.01, "GFLOP per gradient": 0.5}}
        found[arm.label] = Trajectory(metadata, pd.DataFrame())
    page.keep(tmp_path / "steps.csv", page.rows(study, share, found))
    page.keep(tmp_path / "steps.csv", page.rows(study, share, found))
    table = pd.read_csv(tmp_path / "steps.csv")
    assert table["arm"].tolist() == ["K=1", "K=5", "K=10"]
    # 0.01 s for 4 of 256 examples and 1 of 5 runs are 3.2 s a step, and 63,600 steps of it 2.356 days
    assert table["whole, seconds per step"].tolist() == [3.2] * 3 and table["days"].tolist() == [2.356] * 3
    page.write(tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert (
        "1 of the paper's 7 studies were measured: they take at most 7 days on cpu (x86_64)" in text
        and "On any GPU: unknown" in text
    )
    assert "| CelebA, 64x64 | samples | 3 | B / 64, 1 of 5 runs | 3.2 to 3.2 | 7.1 |" in text
    assert "up to 2.5" in text
