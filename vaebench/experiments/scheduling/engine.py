"""Many experiments on one machine: each in a process of its own, so many at a time.

A process that is killed takes nothing with it: its experiment goes on from its snapshot when it is run again.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

from vaebench.experiments.experiment import Experiment
from vaebench.experiments.running import EVERY, Progress

POLL = 0.2  # seconds


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
        stop: asked often; where it says so, processes keep a snapshot and end, and nothing more begins.
        every: seconds between snapshots.
        found: how data sets in files are found.

    Yields:
        Outcomes, in the order in which they end.
    """
    live: set[subprocess.Popen] = set()

    def one(experiment: Experiment) -> Outcome:
        return (
            Outcome(experiment, stopped=0)
            if stop()
            else _run_one(experiment, root, progress, every, dict(found or {}), live)
        )

    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(one, experiment) for experiment in experiments}
        while waiting:
            ended, waiting = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
            if stop():
                for process in list(live):
                    process.send_signal(signal.SIGINT)
            yield from (future.result() for future in ended)


def _run_one(
    experiment: Experiment,
    root: Path,
    progress: Callable[[Progress], None],
    every: float,
    found: dict[str, Any],
    live: set[subprocess.Popen],
) -> Outcome:
    task = {"experiment": experiment.to_dict(), "root": str(root), "every": every, "found": found}
    last: dict[str, Any] = {}
    with TemporaryFile("w+") as errors, _worker(errors) as process:
        assert process.stdin and process.stdout
        live.add(process)
        process.stdin.write(json.dumps(task))
        process.stdin.close()
        for line in process.stdout:
            last = json.loads(line)
            if "step" in last:
                progress(Progress(experiment.hash, last["step"], experiment.steps, last["note"]))
        process.wait()
        live.discard(process)
        errors.seek(0)
        trouble = errors.read().strip().splitlines()
    if last.get("done"):
        return Outcome(experiment)
    if "stopped" in last:
        return Outcome(experiment, stopped=last["stopped"])
    died = f"its process ended with status {process.returncode}"
    return Outcome(experiment, failed=last.get("failed") or (f"{died}: {trouble[-1]}" if trouble else died))


def _worker(errors: IO[str]) -> subprocess.Popen:
    """A process that the terminal's Ctrl-C does not reach: it is told to stop by this one."""
    command = [sys.executable, "-m", "vaebench.experiments.scheduling.worker"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, process_group=0)
