"""`make cuda`, rehearsed on the CPU, on a machine that has torch and numpy alone."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.cuda import __main__ as command
from benchmarks.cuda import points, variants

ROOT = Path(__file__).parents[1]
BARE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
from benchmarks.cuda.__main__ import main
sys.exit(main({arguments!r}))
"""
MISSING = {"asv", "pandas", "scipy", "sklearn", "PIL", "typer", "rich", "safetensors", "matplotlib", "pooch",
           "platformdirs", "filelock", "hypothesis", "pytest"}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    sizes = replace(points.TINY, samples=(1,))
    monkeypatch.setattr(command, "TINY", sizes)
    monkeypatch.setattr(points, "COMPILED", ())
    return sizes


def test_a_rehearsal_goes_through_every_point_and_says_that_it_is_one(tiny, tmp_path, capsys):
    out = tmp_path / "record.json"
    assert command.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    record = json.loads(out.read_text("utf-8"))
    assert record["rehearsal"] and record["tests"] == "not run: a rehearsal"
    assert {row["what"] for row in record["rows"]} == {
        "step", "recording |grad|^2", "host synchronisations", "fleet", "peak memory"}  # fmt: skip
    steps = {row["variant"]: row for row in record["rows"] if row["what"] == "step" and row["model"] == "conv32"}
    assert steps["eager"]["speedup"]["median"] == 1 and steps["channels_last"]["right"]
    assert steps["graph"]["reason"] == "RuntimeError: CUDA graphs need a CUDA device"
    assert "goal 3" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_without_a_device_it_says_so_and_writes_nothing():
    before = sorted((ROOT / "reports/history").rglob("*"))
    run = subprocess.run(
        [sys.executable, "-c", BARE.format(missing=MISSING, arguments=[])], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 2 and "sees no CUDA device" in run.stdout and run.stderr == ""
    assert sorted((ROOT / "reports/history").rglob("*")) == before


def test_points_that_time_does_not_allow_are_named():
    rows = command.measure(replace(points.TINY, seconds=-1), "cpu")
    assert rows and all("were spent" in row["reason"] for row in rows)


def test_a_wrong_gradient_is_not_fast(monkeypatch):
    make = variants.make

    def faulty(variant, loss, x, noise):
        return make(variant, loss, x, noise if variant == variants.EAGER else -noise)

    monkeypatch.setattr(variants, "make", faulty)
    chosen = (variants.EAGER, variants.Variant(channels_last=True))
    eager, other = points.steps("conv32", 1, points.TINY, "cpu", chosen)
    assert eager["right"] and not other["right"] and not other["met"] and "WRONG" in command.line(other)


def test_a_step_that_moves_nothing_is_found():
    loss, x, noise = points.problem("mlp", 1, 2, "cpu")
    step = variants.make(variants.EAGER, loss, x, noise)
    start = [p.detach().clone() for p in step.loss.parameters()]
    idle = replace(step, run=lambda: None)
    with pytest.raises(RuntimeError, match="did not move"):
        variants.gradient_errors(idle, start, points.gradient(loss, x, noise))


def test_settings_are_as_they_were():
    read = lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    before = read()
    with variants.precision():
        assert read() == (False, False)
        with variants.precision(variants.Variant("tf32")):
            assert read() == (True, True)
        assert read() == (False, False)
    assert read() == before


def test_the_soft_clipped_net_is_traced_whole():
    loss, x, noise = points.problem("conv32_soft_clip", 1, 2, "cpu")
    torch._dynamo.reset()
    assert torch._dynamo.explain(loss)(x, noise).graph_break_count == 0
    torch._dynamo.reset()


def test_asv_passes_over_the_records(tmp_path):
    results = pytest.importorskip("asv.results")
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "some-device.json").write_text("{}")
    assert list(results.iter_results(str(tmp_path))) == []
