"""What a step of an experiment takes, apart from what its run does once, such as compiling the step."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from vaebench.experiments import run
from vaebench.experiments.experiment import Experiment
from vaebench.experiments.running import Progress
from vaebench.experiments.trajectory import Trajectory
from vaebench.measures.cost import own_clock
from vaebench.support.files import write_whole
from vaebench.training.records import geometric

RESULTS, TIMINGS = "results", "timings"
Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """Of one run.

    Attributes:
        step: seconds of a step, the median of those that are neither the first nor before a checkpoint, by the clock
            that other work disturbs least: `own_clock`.
        steps: how many these are.
        once: seconds on the wall that the run took beside its steps and its probes: the compilation.
    """

    step: float
    steps: int
    once: float


class Stopwatch:
    """Notes when a run begins each step; it is told by the run as its `progress`."""

    def __init__(self, own: Clock, wall: Clock = time.perf_counter):
        """By a clock for the steps, and one for the run."""
        self._clocks = own, wall
        self._began: dict[int, tuple[float, ...]] = {}

    def __call__(self, progress: Progress) -> None:
        """Note the time."""
        if progress.step:  # before the first one it is told what is prepared
            self._began[progress.step] = tuple(now() for now in self._clocks)

    def timing(self, marks: Sequence[int], seconds: float) -> Timing:
        """What the steps took.

        Args:
            marks: steps after which the run measured.
            seconds: on the wall of the whole run, probes left out.

        Returns:
            The timing.
        """
        numbers = [n for n, after in pairwise(sorted(self._began)) if n > 1 and n not in marks and after == n + 1]
        own, wall = (median(self._began[n + 1][clock] - self._began[n][clock] for n in numbers) for clock in range(2))
        return Timing(own, len(numbers), max(0.0, seconds - wall * max(self._began)))


def timed(experiment: Experiment, directory: Path) -> tuple[Trajectory, Timing]:
    """Run an experiment on the files in a directory and time its steps, or read what an earlier call found.

    Returns:
        What the run recorded, and the timing.
    """
    kept = directory / TIMINGS / f"{experiment.hash}.json"
    if not kept.exists():
        shutil.rmtree(directory / RESULTS / experiment.hash, ignore_errors=True)  # steps that nobody timed to the end
        watch = Stopwatch(own_clock(experiment.device))
        made = run(experiment, directory / RESULTS, watch, directory=str(directory))
        seconds = made.metadata["cost"]["seconds per step"] * experiment.steps
        found = watch.timing(geometric(experiment.steps, experiment.measures.per_decade), seconds)
        write_whole(kept, json.dumps(asdict(found)).encode())
    recorded = run(experiment, directory / RESULTS, directory=str(directory))
    return recorded, Timing(**json.loads(kept.read_text("utf-8")))
