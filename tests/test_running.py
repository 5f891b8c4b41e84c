"""Runs: whatever interrupts them, the rows are those of a run that nothing interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cases import NEEDS_COMPILER
from tests.processes import CONTEXT
from tests.test_data_files import write_celeba
from vaebench.experiments import (
    BusyError,
    ComponentSpec,
    Experiment,
    Interrupted,
    Measures,
    ResultDirectory,
    run,
    running,
)
from vaebench.experiments.building import build
from vaebench.experiments.presets import SMOKE
from vaebench.experiments.scheduling.engine import run_all
from vaebench.experiments.storage import QUESTION, RESULT, STATE
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import count
from vaebench.support.files import write_whole
from vaebench.training.schedules import inverse_sqrt

SMALL = Experiment(
    ComponentSpec("linear_gaussian"),
    ComponentSpec("linear_vae"),
    Objective(samples=40),  # blocks of 25 steps
    "pathwise",
    ComponentSpec("adam"),
    inverse_sqrt(0.01),
    1500,
    32,
    seeds=(0, 1),
    probes=("gradient", "bounds"),
    measures=Measures(2, 4, 16, 64, 10, 10),
    dtype="float64",
)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Where a run that nothing interrupted left its result, and that result."""
    root = tmp_path_factory.mktemp("whole")
    return root, run(SMALL, root)


@pytest.fixture(scope="module")
def whole(complete):
    return complete[1]


def same(first, second) -> bool:
    return repr(first.frame.to_dict("list")) == repr(second.frame.to_dict("list"))


def _child(plain: dict, root: str, every: float) -> None:
    torch.set_num_threads(1)
    run(Experiment.from_dict(plain), Path(root), every=every)


def test_kill_9_at_five_random_moments_changes_nothing(tmp_path, whole):
    place, moments, kept = ResultDirectory(tmp_path, SMALL), random.Random(0), []
    for _ in range(5):
        process = CONTEXT.Process(target=_child, args=(SMALL.to_dict(), str(tmp_path), 0.0))
        process.start()
        before, patience = place.step(), time.monotonic() + 60
        while place.step() == before and process.is_alive() and time.monotonic() < patience:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.12))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kept.append(place.step())
        assert place.unfinished() or place.complete()
    assert kept == sorted(kept)
    assert len({step for step in kept if step < SMALL.steps}) > 2
    assert same(run(SMALL, tmp_path), whole)
    assert sorted(path.name for path in place.directory.iterdir() if not path.name.startswith(".")) == sorted(
        [QUESTION, RESULT, "lock"]
    )


def test_asked_to_stop_a_run_keeps_what_it_has_and_goes_on(tmp_path, whole):
    with pytest.raises(Interrupted, match="stopped after step 25"):
        run(SMALL, tmp_path, stop=lambda: True)
    assert ResultDirectory(tmp_path, SMALL).step() == 25
    assert same(run(SMALL, tmp_path), whole)


@NEEDS_COMPILER
@pytest.mark.usefixtures("scalar_code")
def test_a_compiled_run_goes_on_as_if_nothing_had_stopped_it_and_says_what_it_was(tmp_path, whole):
    one = replace(SMALL, compiled=True)
    unbroken = run(one, tmp_path / "unbroken")
    with pytest.raises(Interrupted):
        run(one, tmp_path, stop=lambda: True)
    assert same(run(one, tmp_path), unbroken)
    assert (unbroken.metadata["steps"], whole.metadata["steps"]) == ("compiled", "recorded")
    assert unbroken.frame["grad_sq"].tolist() == pytest.approx(whole.frame["grad_sq"].tolist(), rel=1e-6)


@pytest.mark.parametrize("changes", [{}, {"objective": Objective(3, 0.0)}, {"estimator": "score_function"}])
def test_recorded_steps_are_the_eager_ones_bit_for_bit_and_parts_of_others_are_called_at_every_step(tmp_path, changes):
    """A part named by its module is somebody's own, whoever it is, and may remember its calls; 16 steps are eager."""
    mine = replace(SMALL, steps=300, **changes)
    other = replace(mine, estimator=f"vaebench.gradients.estimators:{mine.estimator}")
    recorded, eager = run(mine, tmp_path), run(other, tmp_path)
    assert (recorded.metadata["steps"], eager.metadata["steps"]) == ("recorded", "eager")
    assert same(recorded, eager)


WITHOUT_COMPILER = """
import json, sys
from pathlib import Path
from vaebench.experiments import Experiment, run
notes = []
one = Experiment.from_dict(json.loads(sys.argv[1]))
found = run(one, Path(sys.argv[2]), progress=lambda at: notes.append(at.note))
print(json.dumps([found.metadata["steps"], [note for note in notes if note]]))
"""


def test_where_steps_cannot_be_compiled_the_run_goes_on_and_the_record_says_why(tmp_path):
    one = replace(SMALL, compiled=True, steps=30)
    command = [sys.executable, "-c", WITHOUT_COMPILER, json.dumps(one.to_dict()), str(tmp_path)]
    none = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    answer = subprocess.run(command, env=none, capture_output=True, text=True, check=True)
    outcome, notes = json.loads(answer.stdout.splitlines()[-1])
    assert outcome.startswith("eager: Compilation failed (")
    assert len(notes) == 1 and notes[0].startswith("Steps are not compiled: Compilation failed (")


def test_a_complete_run_is_read_not_run(complete):
    root, whole = complete
    assert same(run(SMALL, root, progress=lambda _: pytest.fail("it ran again")), whole)


def test_two_processes_do_not_share_a_directory(tmp_path):
    with ResultDirectory(tmp_path, SMALL).taken(), pytest.raises(BusyError, match="Another process is running"):
        run(SMALL, tmp_path)


def test_progress_reaches_the_end(tmp_path):
    seen = []
    run(replace(SMALL, steps=50), tmp_path, progress=seen.append)
    assert (seen[-1].step, seen[-1].steps) == (50, 50)


def test_a_damaged_snapshot_is_refused(tmp_path):
    place = ResultDirectory(tmp_path, SMALL)
    with place.taken():
        (place.directory / STATE).write_bytes(b"not one")
    with pytest.raises(ValueError, match="is damaged: delete it"):
        run(SMALL, tmp_path)


def test_a_snapshot_that_is_replaced_while_it_is_read_is_one_of_the_two(tmp_path):
    place, contents = ResultDirectory(tmp_path, SMALL), []
    for stop_after in (1, 2):
        asked = iter([False] * (stop_after - 1) + [True])
        with pytest.raises(Interrupted):
            run(SMALL, tmp_path, stop=lambda asked=asked: next(asked))
        contents.append((place.directory / STATE).read_bytes())
    assert len({len(content) for content in contents}) == 2
    over = threading.Event()

    def replacing():
        while not over.is_set():
            for content in contents:
                write_whole(place.directory / STATE, content)

    writer = threading.Thread(target=replacing)
    writer.start()
    try:
        seen, patience = {place.step() for _ in range(400)}, time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < patience:
            seen.add(place.step())
    finally:
        over.set()
        writer.join()
    assert len(seen) == 2


def test_the_log_of_a_run_says_what_ran(whole):
    metadata = whole.metadata
    assert Experiment.from_dict(metadata["experiment"]) == SMALL
    assert metadata["hash"] == SMALL.hash
    assert metadata["cost"]["seconds per step"] > 0
    assert metadata["cost"]["GFLOP per gradient"] > 0
    assert not metadata["diverged"]


def test_costs_are_in_the_units_that_they_say():
    problem = build(SMALL)
    found, told = count(running.gradient(SMALL, problem)), running.cost(SMALL, problem)
    assert told["GFLOP per gradient"] == pytest.approx(found.flops / 10**9) and found.flops > 1000
    assert told["peak MB"] == pytest.approx(found.peak_bytes / 10**6) and found.peak_bytes > 1000
    assert told["operations per gradient"] == found.ops


def test_every_member_diverging_ends_a_run_with_a_record(tmp_path):
    trajectory = run(replace(SMALL, schedule=inverse_sqrt(1e200), optimizer=ComponentSpec("sgd")), tmp_path)
    assert [one["seed"] for one in trajectory.metadata["diverged"]] == [0, 1]


def ended(experiments, root, **more):
    return list(run_all(experiments, root, 2, more.pop("progress", lambda _: None), lambda: False, **more))


BROKEN = replace(SMALL, estimator="analytic_kl", objective=Objective(2, 0.0))
FINE = replace(SMALL, steps=30), replace(SMOKE.base, steps=20)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Where three experiments ran, each in its process, two of them at once, and how they ended, by their hashes."""
    root = tmp_path_factory.mktemp("together")
    return root, {outcome.experiment.hash: outcome for outcome in ended([BROKEN, *FINE], root)}


def test_a_broken_experiment_does_not_take_the_others_with_it(together):
    root, found = together
    assert "analytic_kl is defined for the ELBO" in (found[BROKEN.hash].failed or "")
    assert all(found[one.hash].complete and ResultDirectory(root, one).complete() for one in FINE)


@pytest.mark.parametrize("one", FINE, ids=["small", "smoke"])
def test_results_do_not_depend_on_the_process(one, together, tmp_path):
    assert same(run(one, tmp_path), ResultDirectory(together[0], one).result())


def test_a_process_that_is_killed_is_reported(tmp_path, monkeypatch):
    processes, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: processes.append(start(*a, **k)) or processes[-1])
    (outcome,) = ended([replace(SMALL, steps=10**6)], tmp_path, progress=lambda _: processes[0].kill())
    assert outcome.failed == "its process ended with status -9"


def test_a_worker_stops_on_ctrl_c_with_a_snapshot(tmp_path):
    long = replace(SMALL, steps=10**6)
    command = [sys.executable, "-m", "vaebench.experiments.scheduling.worker"]
    task = {"experiment": long.to_dict(), "root": str(tmp_path), "every": 60, "found": {}}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        while json.loads(process.stdout.readline()).get("step", 0) < 50:
            pass
        process.send_signal(signal.SIGINT)
        last = json.loads(process.stdout.read().splitlines()[-1])
    assert last["stopped"] == ResultDirectory(tmp_path, long).step() > 0


def test_photographs_in_files_are_decoded_with_progress_and_trained_on_as_bytes(tmp_path):
    write_celeba(tmp_path / "files", np.random.default_rng(0), "0" * 12 + "2" * 6)
    model = ComponentSpec("mlp_vae", {"hidden": [4], "latents": 2})
    one = replace(
        SMALL, data=ComponentSpec("celeba"), model=model, objective=Objective(), dtype="float32", steps=5, batch_size=4
    )
    seen = []
    (outcome,) = ended([one], tmp_path, progress=seen.append, found={"directory": str(tmp_path / "files")})
    assert outcome.complete, outcome.failed
    assert any(at.note.startswith("decoding") for at in seen)
    result = ResultDirectory(tmp_path, one).result()
    assert result is not None
    assert np.isfinite(result.frame["bound_test"]).all()
