"""`make cuda`, rehearsed on the CPU, on a machine that has torch and numpy alone."""

import gc
import json
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.cuda import __main__ as command
from benchmarks.cuda import points, variants
from tests.cases import NEEDS_COMPILER

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
    monkeypatch.setattr(points, "compiled", points.eager)
    return sizes


def test_a_rehearsal_goes_through_every_point_and_says_that_it_is_one(tiny, tmp_path, capsys):
    out = tmp_path / "record.json"
    assert command.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    record = json.loads(out.read_text("utf-8"))
    assert record["rehearsal"] and record["tests"] == "not run: a rehearsal"
    rows = [row for point in record["points"].values() for row in point]
    assert {row["what"] for row in rows} == {
        "step", "recording |grad|^2", "host synchronisations", "fleet", "peak memory"}  # fmt: skip
    steps = {row["variant"]: row for row in rows if row["what"] == "step" and row["model"] == "conv32"}
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


@pytest.fixture
def two_points(monkeypatch):
    """Two points, of which the second meets Ctrl-C the first time; how often each was measured."""
    counts = {"first": 0, "second": 0}

    def measured(name):
        counts[name] += 1
        if name == "second" and counts[name] == 1:
            raise KeyboardInterrupt
        return [{"what": name}]

    monkeypatch.setattr(command, "plan", lambda *_: [(name, partial(measured, name)) for name in counts])
    return counts


def test_an_interrupted_record_goes_on_unless_the_code_is_another(two_points, tmp_path, monkeypatch):
    arguments = ["--device", "cpu", "--quick", "--out", str(tmp_path / "record.json")]
    with pytest.raises(KeyboardInterrupt):
        command.main(arguments)
    assert list(json.loads((tmp_path / "record.json").read_text("utf-8"))["points"]) == ["first"]
    assert command.main(arguments) == 0 and two_points == {"first": 1, "second": 2}
    monkeypatch.setattr(command, "code", lambda: "another")
    assert command.main(arguments) == 0 and two_points == {"first": 2, "second": 3}


@pytest.mark.parametrize("content", ["notes", "[1]", "3"])
def test_what_is_no_record_is_not_written_over(content, two_points, tmp_path):
    (tmp_path / "notes.json").write_text(content)
    with pytest.raises(SystemExit, match="is no record"):
        command.main(["--device", "cpu", "--quick", "--out", str(tmp_path / "notes.json")])
    assert (tmp_path / "notes.json").read_text() == content and two_points == {"first": 0, "second": 0}


def test_points_that_time_does_not_allow_are_named(two_points, monkeypatch, capsys):
    monkeypatch.setattr(command, "TINY", replace(points.TINY, seconds=-1))
    assert command.main(["--device", "cpu", "--quick"]) == 3
    assert "Time was up before first, second: the same command goes on." in capsys.readouterr().out


def test_tests_that_fail_are_recorded_and_run_again(two_points, tmp_path, monkeypatch):
    two_points["second"] = 1
    out, key = tmp_path / "record.json", command.header("cpu", True) | {"rehearsal": False}
    monkeypatch.setattr(command, "header", lambda *_: key)
    for tests, passed, status in (("1 failed", False, 1), ("1 passed", True, 0), ("not asked for", False, 0)):
        monkeypatch.setattr(command, "tested", lambda tests=tests, passed=passed: (tests, passed))
        assert command.main(["--device", "cpu", "--quick", "--out", str(out)]) == status
    assert json.loads(out.read_text("utf-8"))["tests"] == "1 passed"


@pytest.fixture
def captured_on_the_cpu(monkeypatch):
    """Enough of torch.cuda to capture a step on the CPU, where it runs instead."""
    nothing = lambda *_: nullcontext()
    stream = SimpleNamespace(wait_stream=nothing, is_capturing=lambda: False)
    fakes = {
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": nothing,
        "graph": nothing,
        "CUDAGraph": lambda: SimpleNamespace(replay=nothing),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.accelerator, "current_stream", fakes["current_stream"])


def test_what_a_graph_writes_to_stays_alive(captured_on_the_cpu, monkeypatch):
    """A CUDA graph knows addresses alone: were Adam's moments given back, a replay would write into others' memory."""
    adam, made = torch.optim.Adam, []

    def recorded(*arguments, capturable, **options):
        optimizer = adam(*arguments, **options)
        made.append(weakref.ref(optimizer))
        return optimizer

    monkeypatch.setattr(torch.optim, "Adam", recorded)
    step = variants.make(variants.Variant(graph=True), *points.problem("mlp", 1, 2, "cpu"))
    gc.collect()
    assert made[0]() is not None
    del step
    gc.collect()
    assert made[0]() is None


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


@NEEDS_COMPILER
def test_the_soft_clipped_net_is_compiled_whole():
    loss, x, noise = points.problem("conv32_soft_clip", 1, 2, "cpu")
    start, exact = [p.detach().clone() for p in loss.parameters()], points.gradient(loss, x, noise)
    step = variants.make(variants.Variant(compiled=True), loss, x, noise)
    assert max(variants.gradient_errors(step, start, exact).values()) <= step.variant.allowed


def test_asv_passes_over_the_records(tmp_path):
    results = pytest.importorskip("asv.results", reason="make cuda needs no asv")
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "some-device.json").write_text("{}")
    assert list(results.iter_results(str(tmp_path))) == []
