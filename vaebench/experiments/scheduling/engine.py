"""Many experiments on one machine: each in a process of its own, so many at a time.

A process that is killed takes nothing with it: its experiment goes on from its snapshot when it is run again.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

from vaebench.experiments.experiment import Experiment
from vaebench.experiments.running import EVERY, Progress
from vaebench.experiments.storage import BusyError, ResultDirectory

POLL = 0.2  # seconds
BEGIN = "import sys; sys.path.append(''); from vaebench.experiments.scheduling.worker import main; main()"
"""With -P, and the current directory looked at last: no file in it takes the place of a library's."""


class Outcome(NamedTuple):
    """How an experiment ended: complete, or stopped after a step, or failed with a sentence.

    Attributes:
        experiment: which.
        stopped: after how many steps, if it was.
        failed: why, if it did.
        warnings: what was noticed, such as a file of data that is not the original.
    """

    experiment: Experiment
    stopped: int | None = None
    failed: str | None = None
    warnings: tuple[str, ...] = ()

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
        if stop():
            return Outcome(experiment, stopped=0)
        try:
            ResultDirectory(root, experiment).require_free()
        except BusyError as busy:
            return Outcome(experiment, failed=str(busy))
        return _run_one(experiment, root, progress, stop, every, dict(found or {}), live)

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
    stop: Callable[[], bool],
    every: float,
    found: dict[str, Any],
    live: set[subprocess.Popen],
) -> Outcome:
    task = {"experiment": experiment.to_dict(), "root": str(root), "every": every, "found": found}
    last: dict[str, Any] = {}
    warnings: list[str] = []
    with TemporaryFile("w+", errors="replace") as errors, _worker(errors) as process:
        assert process.stdin and process.stdout
        live.add(process)
        with suppress(BrokenPipeError):  # it ended at once; what it says tells why
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()  # and open: its end tells the process that this one is gone
        for line in process.stdout:
            last = json.loads(line)
            if "step" in last:
                progress(Progress(experiment.hash, last["step"], experiment.steps, last["note"]))
            warnings += [last["warning"]] if "warning" in last else []
        process.wait()
        live.discard(process)
        with suppress(BrokenPipeError):
            process.stdin.close()
        errors.seek(0)
        trouble = errors.read().strip().splitlines()
    if last.get("done"):
        return Outcome(experiment, warnings=tuple(warnings))
    if "stopped" in last:
        return Outcome(experiment, stopped=last["stopped"])
    if "failed" not in last and stop():
        return Outcome(experiment, stopped=0)  # it was told to stop before it had begun
    died = f"its process ended with status {process.returncode}"
    return Outcome(experiment, failed=last.get("failed") or (f"{died}: {trouble[-1]}" if trouble else died))


def _worker(errors: IO[str]) -> subprocess.Popen:
    """A process that the terminal's Ctrl-C does not reach: it is told to stop by this one."""
    command = [sys.executable, "-P", "-c", BEGIN]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, process_group=0)
