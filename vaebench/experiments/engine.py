"""Many experiments on one machine: each in a process of its own, so many at a time.

A process that is killed takes nothing with it: its experiment goes on from its snapshot when it is run again.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from vaebench.experiments.experiment import Experiment
from vaebench.experiments.running import EVERY, Progress


class Outcome(NamedTuple):
    """How an experiment ended: complete, or stopped after a step, or failed with a sentence."""

    experiment: Experiment
    stopped: int | None = None
    failed: str | None = None

    @property
    def complete(self) -> bool:
        """Whether there is a result."""
        return self.stopped is None and self.failed is None


def run_all(
    experiments: Sequence[Experiment],
    root: Path,
    jobs: int,
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
    every: float = EVERY,
    found: Mapping[str, Any] | None = None,
) -> Iterator[Outcome]:
    """Run experiments, or go on with them, as they come to their ends.

    Args:
        experiments: distinct.
        root: of the results.
        jobs: processes at a time.
        progress: told the steps of each, from other threads.
        stop: asked before each experiment; processes are told to stop by their own signal.
        every: seconds between snapshots.
        found: how data sets in files are found.

    Yields:
        Outcomes, in the order in which they end.
    """

    def one(experiment: Experiment) -> Outcome:
        return (
            Outcome(experiment, stopped=0) if stop() else _run_one(experiment, root, progress, every, dict(found or {}))
        )

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(one, experiment) for experiment in experiments]
        for future in as_completed(waiting):
            yield future.result()


def _run_one(
    experiment: Experiment, root: Path, progress: Callable[[Progress], None], every: float, found: dict[str, Any]
) -> Outcome:
    task = {"experiment": experiment.plain(), "root": str(root), "every": every, "found": found}
    command = [sys.executable, "-m", "vaebench.experiments.worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with TemporaryFile("w+") as errors, subprocess.Popen(command, stderr=errors, **pipes) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(task))
        process.stdin.close()
        last: dict[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
            if "step" in last:
                progress(Progress(experiment.hash, last["step"], experiment.steps))
        process.wait()
        errors.seek(0)
        trouble = errors.read().strip().splitlines()
    if last.get("done"):
        return Outcome(experiment)
    if "stopped" in last:
        return Outcome(experiment, stopped=last["stopped"])
    died = f"its process ended with status {process.returncode}"
    return Outcome(experiment, failed=last.get("failed") or (f"{died}: {trouble[-1]}" if trouble else died))
