"""One launch of Python: it imports what vaebench needs, then forks pairs of processes, one for each commit.

`python -m benchmarks.harness.compare.launch BASE HEAD PAIRS ROUNDS PLANTED`, BASE and HEAD being folders that hold a
vaebench; PLANTED is 1 where HEAD is to do a 20th more of every benchmark's work. Prints a line of JSON for each pair.

Both processes stay on one core and only one of them works at a time. A fair coin says which is forked first and
begins: then identical code gives each ratio and its inverse with one probability, whatever the machine does, and
the interval of `interval` errs exactly as often as it says. Time is the processor's, so that waiting for a core
that others use is not counted; nor is sleeping.
"""

import gc
import importlib
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.compare.cases import CASES, QUANTUM, Control

PRELOADED = ("torch._dynamo", "pandas", "scipy.stats", "sklearn.datasets", "PIL.Image")
FORK = multiprocessing.get_context("fork")
WARM_UP = 1
"""Samples that are not counted."""


def seconds(run: Callable[[], object], calls: int) -> float:
    """Of the processor for so many calls, all threads together."""
    start = time.process_time()
    for _ in range(calls):
        run()
    return time.process_time() - start


class Worker:
    """Times the benchmarks with the vaebench of one folder."""

    def __init__(self, folder: str, planted: bool):
        """Import it, and make sure that it is the one."""
        torch.set_num_threads(1)
        sys.path.insert(0, folder)
        found = importlib.import_module("vaebench").__file__
        if found is None or not Path(found).is_relative_to(folder):
            raise ImportError(f"vaebench was imported from {found} in place of {folder}.")
        self.more = int(planted)
        self.control = Control()

    def prepare(self, number: int) -> str | None:
        """Set a case up and warm it up: None, or why it cannot be timed."""
        self.case = CASES[number]
        try:
            self.run = self.case.prepare()
            for _ in range(WARM_UP):
                self.sample()
        except Exception as error:  # whatever the code of a commit does wrong, the others are timed
            return f"{type(error).__name__}: {error}"
        return None

    def sample(self) -> tuple[float, float]:
        """Seconds of the case, and of the control beside it."""
        gc.collect()
        gc.disable()
        self.run()
        before = seconds(self.control, 4)
        spent = seconds(self.run, self.case.calls + self.more * self.case.calls // QUANTUM)
        after = seconds(self.control, 4)
        gc.enable()
        return spent, before + after


class Side:
    """The process of one commit, seen from the launch."""

    def __init__(self, folder: str, planted: bool):
        """Fork it."""
        self.connection, theirs = FORK.Pipe()
        self.process = FORK.Process(target=serve, args=(theirs, folder, planted), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, method: str, *arguments: object) -> Any:
        """Wait for what a method of the worker returns."""
        self.connection.send((method, *arguments))
        return self.connection.recv()

    def end(self) -> None:
        """Let it go; closing would not tell it, since the process forked later holds this end as well."""
        self.connection.send(None)
        self.process.join()


def serve(connection: Connection, folder: str, planted: bool) -> None:
    """Answer until there is nothing more to do."""
    worker = Worker(folder, planted)
    while request := connection.recv():
        method, *arguments = request
        connection.send(getattr(worker, method)(*arguments))


def timed(sides: Mapping[str, Side], number: int, rounds: int) -> list[list[float]] | str:
    """Base's seconds and control, then head's, for every round; or why there are none."""
    reasons = {name: side.ask("prepare", number) for name, side in sides.items()}
    for name in ("base", "head"):
        if reasons[name]:
            return f"{name}: {reasons[name]}"
    found, order = [], list(sides)
    for _ in range(rounds):
        samples = {name: sides[name].ask("sample") for name in order}
        found.append([*samples["base"], *samples["head"]])
        order.reverse()
    return found


def pair(folders: Mapping[str, str], planted: bool, rounds: int) -> dict[str, Any]:
    """Fork both processes, in the order of the folders, and time every case."""
    sides = {name: Side(folder, planted and name == "head") for name, folder in folders.items()}
    found = {case.name: timed(sides, number, rounds) for number, case in enumerate(CASES)}
    for side in sides.values():
        side.end()
    return {"first": next(iter(sides)), "cases": found}


def main(base: str, head: str, pairs: str, rounds: str, planted: str) -> None:
    """Print pair after pair."""
    if hasattr(os, "sched_setaffinity"):  # on Linux
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for module in PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    folders = [("base", base), ("head", head)]
    for _ in range(int(pairs)):
        coin = random.random() < 0.5
        found = pair(dict(reversed(folders) if coin else folders), planted == "1", int(rounds))
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
