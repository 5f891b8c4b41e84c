"""Run one experiment to its end, from wherever it is."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaebench.data.files import fingerprint
from vaebench.data.sampling import with_replacement
from vaebench.experiments.building import Problem, build
from vaebench.experiments.experiment import Experiment
from vaebench.experiments.probes.catalogue import probes_of
from vaebench.experiments.probes.measuring import Probe, Setting
from vaebench.experiments.storage import ResultDirectory, Unfinished
from vaebench.experiments.trajectory import Trajectory, environment
from vaebench.gradients.estimators import ESTIMATORS, draw_noise
from vaebench.measures.cost import clock, count
from vaebench.models import MODELS, minibatch
from vaebench.training.compilation import Compiler, recorder
from vaebench.training.fleet import train
from vaebench.training.records import Checkpoint, State, geometric
from vaebench.training.snapshots import Snapshot
from vaebench.training.steps import eager

EVERY = 60.0  # seconds between snapshots


class Progress(NamedTuple):
    """How far a run is: its experiment's hash, steps taken, and steps in all; before the first, what it prepares."""

    hash: str
    step: int
    steps: int
    note: str = ""


class Interrupted(Exception):
    """The run was asked to stop, and a snapshot was kept."""

    def __init__(self, step: int):
        """Note where it stopped."""
        super().__init__(f"stopped after step {step}")
        self.step = step


class _Meter:
    """Seconds spent on steps, those spent on probes left out."""

    def __init__(self, device: str, before: float):
        self._now, self._before = clock(device), before
        self._start, self._probing = self._now(), 0.0

    def aside(self, probe: Probe) -> Probe:
        def timed(state: State) -> torch.Tensor:
            start = self._now()
            found = probe(state)
            self._probing += self._now() - start
            return found

        return timed

    def seconds(self) -> float:
        return self._before + self._now() - self._start - self._probing


def run(
    experiment: Experiment,
    root: Path,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    every: float = EVERY,
    **found: Any,
) -> Trajectory:
    """Run an experiment, or go on with it, or read its result if it is complete.

    Args:
        experiment: what to run.
        root: of the results; the experiment's own directory in it is named by its hash.
        progress: told the step, often.
        stop: asked often; where it says so a snapshot is kept and the run ends.
        every: seconds between snapshots.
        found: how data sets in files are found, for `build`.

    Returns:
        The trajectory; `BusyError` if another process is running it, `Interrupted` if it was stopped.
    """
    place = ResultDirectory(root, experiment)
    with place.taken():
        done = place.result() if place.complete() else None
        return done or _go_on(place, experiment, progress, stop, every, found)


class _Keeper:
    """Keeps a snapshot every so many seconds, and at once where the run is asked to stop, which ends it."""

    def __init__(
        self,
        place: ResultDirectory,
        rows: list[dict[str, Any]],
        meter: _Meter,
        stop: Callable[[], bool] | None,
        every: float,
    ):
        self._place, self._rows, self._meter, self._stop, self._every = place, rows, meter, stop, every
        self._saved = time.monotonic()

    def __call__(self, take: Callable[[], Snapshot]) -> None:
        asked = self._stop is not None and self._stop()
        if asked or time.monotonic() - self._saved >= self._every:
            snapshot = take()
            self._place.keep(Unfinished(snapshot, self._rows, self._meter.seconds()))
            self._saved = time.monotonic()
            if asked:
                raise Interrupted(snapshot.step)


def _compiler(experiment: Experiment, note: Callable[[str], None]) -> Compiler | None:
    """The compiler that was asked for, or what gives the eager gradients sooner, or none for other people's parts.

    Returns:
        The compiler; none on a GPU either, where nobody has seen that a record gives the eager gradient bit for bit.
    """
    if experiment.compiled:
        return Compiler(note)
    ours = ESTIMATORS.is_own(experiment.estimator) and MODELS.is_own(experiment.model.name)
    return recorder() if ours and experiment.device == "cpu" else None


def _go_on(
    place: ResultDirectory,
    experiment: Experiment,
    progress: Callable[[Progress], None] | None,
    stop: Callable[[], bool] | None,
    every: float,
    found: dict[str, Any],
) -> Trajectory:
    import pandas as pd  # here: commands that run no experiment start without it

    def note(words: str) -> None:
        if progress is not None:
            progress(Progress(experiment.hash, 0, experiment.steps, words))

    def decoding(done: int, total: int) -> None:
        note(f"decoding {done:,} of {total:,} images")

    problem, before = build(experiment, progress=decoding, **found), place.unfinished()
    marks = geometric(experiment.steps, experiment.measures.per_decade)
    rows: list[dict[str, Any]] = before.rows if before else []
    meter = _Meter(experiment.device, before.seconds if before else 0.0)
    compiler = _compiler(experiment, note)

    def say(number: int) -> float:
        if progress is not None:
            progress(Progress(experiment.hash, number, experiment.steps))
        return experiment.schedule(number)

    last: Checkpoint | None = None
    for last in train(
        problem.models,
        problem.estimator,
        experiment.objective,
        problem.train,
        problem.optimizer,
        say,
        experiment.steps,
        experiment.batch_size,
        experiment.seeds,
        checkpoints=marks,
        probes={name: meter.aside(probe) for name, probe in probes_of(Setting(experiment, problem, marks)).items()},
        start=before.snapshot if before else None,
        keep=_Keeper(place, rows, meter, stop, every),
        compiler=compiler or eager,
    ):
        rows += last.rows()
    assert last is not None
    steps, spent = "eager" if compiler is None else compiler.outcome, meter.seconds() / last.state.step
    trajectory = Trajectory(_metadata(experiment, problem, last, steps, spent), pd.DataFrame(rows))
    place.finish(trajectory)
    return trajectory


def _metadata(experiment: Experiment, problem: Problem, last: Checkpoint, steps: str, spent: float) -> dict[str, Any]:
    """What was run, where and on what data, how steps were taken, which members diverged, and what a gradient costs."""
    splits = {"train": problem.train, "test": problem.test}
    return {
        "experiment": experiment.to_dict(),
        "hash": experiment.hash,
        "commit": commit(),
        **environment(last.state.like.device),
        "data": {split: fingerprint(rows) for split, rows in splits.items() if rows is not None},
        "steps": steps,
        "diverged": [one._asdict() for one in last.diverged],
        "cost": cost(experiment, problem) | {"seconds per step": spent},
    }


def gradient(experiment: Experiment, problem: Problem) -> Callable[[], object]:
    """One member's gradient of one minibatch, as a call to be counted or timed."""
    loss = problem.loss(experiment)
    parameters = list(loss.parameters())
    generator = torch.Generator(device=parameters[0].device).manual_seed(0)
    indices = with_replacement(len(problem.train), experiment.batch_size, generator)(1)[0]
    x = minibatch(problem.train, indices, parameters[0])
    noise = draw_noise(loss.model, x, experiment.objective, generator, loss.estimator)
    return lambda: torch.autograd.grad(loss(x, noise), parameters, allow_unused=True)


def cost(experiment: Experiment, problem: Problem) -> dict[str, float]:
    """What one member's gradient costs, counted exactly: numbers by name, with their units."""
    found = count(gradient(experiment, problem))
    counted = {"GFLOP per gradient": found.flops / 1e9, "operations per gradient": found.ops}
    return counted | {"peak MB": found.peak_bytes / 1e6}


def commit() -> str | None:
    """The commit of the code that runs, marked with "+" if it was changed since; None outside a repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        tracked = git("ls-files", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "..") else "") if tracked else None
    except (OSError, subprocess.CalledProcessError):
        return None
