"""Trajectories come back as they were, or not at all."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from vaebench.data import linear_gaussian
from vaebench.experiments import trajectory
from vaebench.gradients.estimators import pathwise
from vaebench.gradients.objectives import Objective
from vaebench.models import linear_vae
from vaebench.training.fleet import train
from vaebench.training.optimizers import sgd
from vaebench.training.schedules import constant

FRAME = pd.DataFrame(
    {
        "step": [0, 2**53 + 1, 3, 4],
        "value": [0.1 + 0.2, math.nan, math.inf, -5e-324],
        "name": ["nan", "", 'a, "quoted"\r\nline', "NA"],
        "flag": [True, False, True, True],
    }
)
METADATA = {"experiment": {"model": "linear", "betas": [0.9, 0.999]}, "commit": None, "worst": [math.nan, -math.inf]}


def saved(tmp_path, frame=FRAME):
    path = tmp_path / "run.csv"
    trajectory.save(trajectory.Trajectory(METADATA, frame), path)
    return path


def test_every_value_comes_back_as_it_was(tmp_path):
    found = trajectory.load(saved(tmp_path))
    pd.testing.assert_frame_equal(found.frame, FRAME, check_exact=True, check_dtype=False)
    assert [found.frame[name].dtype.kind for name in FRAME] == ["i", "f", "O", "b"]
    assert found.metadata["experiment"] == METADATA["experiment"] and found.metadata["commit"] is None
    assert math.isnan(found.metadata["worst"][0]) and found.metadata["worst"][1] == -math.inf


def test_random_floats_of_any_size_and_single_precision_come_back_exactly(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**63, 2000, dtype=np.uint64).view(np.float64)
    frame = pd.DataFrame({"wide": bits, "narrow": np.linspace(0, 1, 2000, dtype=np.float32)})
    found = trajectory.load(saved(tmp_path, frame)).frame
    np.testing.assert_array_equal(found["wide"], frame["wide"])
    np.testing.assert_array_equal(found["narrow"], frame["narrow"].astype(np.float64))


def test_values_that_are_not_finite_are_marked_in_strict_json(tmp_path):
    text = saved(tmp_path).read_text(encoding="utf-8")
    header = json.loads(text.splitlines()[0][2:], parse_constant=pytest.fail)
    assert header["not_finite"] == {"value": 2}
    assert header["metadata"]["worst"] == [{"float": "nan"}, {"float": "-inf"}]


def test_other_programs_can_read_the_rows(tmp_path):
    assert (
        pd.read_csv(saved(tmp_path, FRAME[["step", "value"]]), comment="#")["step"].tolist() == FRAME["step"].tolist()
    )


@pytest.mark.parametrize("kept", [0, 1, 100, -200, -30, -1])
def test_a_file_cut_short_is_refused(tmp_path, kept):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="cut short"):
        trajectory.load(path)


def test_another_format_or_another_file_is_refused(tmp_path):
    path = saved(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"format": 2', '"format": 3'), encoding="utf-8")
    with pytest.raises(ValueError, match="has format 3, and this vaebench reads format 2"):
        trajectory.load(path)
    path.write_text("step,value\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a trajectory"):
        trajectory.load(path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        saved(tmp_path, FRAME[:1])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_not_overwritten(tmp_path):
    path, other = saved(tmp_path), tmp_path / "link.csv"
    other.hardlink_to(path)
    saved(tmp_path, FRAME[:1])
    assert len(trajectory.load(other).frame) == 4 and len(trajectory.load(path).frame) == 1


def test_columns_of_mixed_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'mixed' must hold"):
        saved(tmp_path, pd.DataFrame({"mixed": [1, "a"]}))
    with pytest.raises(ValueError, match="at least one column"):
        saved(tmp_path, pd.DataFrame())


def test_a_fleet_is_collected_with_what_it_was_and_what_diverged(tmp_path):
    data = linear_gaussian(32, generator=torch.Generator().manual_seed(0))
    model = linear_vae(generator=torch.Generator().manual_seed(1))
    fleet = train(model, pathwise, Objective(), data, sgd, constant(50.0), 200, 4, (7, 9))
    found = trajectory.collect(fleet, {"model": "linear_vae"}, "abc123")
    trajectory.save(found, tmp_path / "run.csv")
    again = trajectory.load(tmp_path / "run.csv")
    assert again.metadata["experiment"] == {"model": "linear_vae"} and again.metadata["commit"] == "abc123"
    assert again.metadata["versions"]["torch"] == torch.__version__ and again.metadata["device"].startswith("cpu")
    assert [entry["seed"] for entry in again.metadata["diverged"]] == [7, 9]
    assert not math.isfinite(again.metadata["diverged"][0]["value"])
    pd.testing.assert_frame_equal(again.frame, found.frame, check_exact=True)
    with pytest.raises(ValueError, match="no checkpoints"):
        trajectory.collect(fleet)
