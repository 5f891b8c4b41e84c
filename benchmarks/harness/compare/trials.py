"""`python -m benchmarks.harness.compare.trials`: real comparisons whose answer is known, kept one by one.

Null trials compare HEAD with itself. In planted ones head does a 20th more of the same work, 5 %: as many calls more in
every sample. Nothing else differs from `make compare`. Run again, it goes on where it stopped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asv.util import UserError

from benchmarks.harness import gate
from benchmarks.harness.compare.job import DESIGN, SCRATCH, compare, export
from benchmarks.harness.machine import describe
from vaebench.support.files import write_whole

RECORDS = Path("reports/history/compare")  # a folder for each kind of machine
TRIALS = "trials.jsonl"
KINDS = ("null", "planted")


def read(path: Path) -> list[dict[str, Any]]:
    """The trials that are kept, in the order they were made."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def keep(trials: Sequence[dict[str, Any]], path: Path) -> None:
    """Write all of them, a line each."""
    write_whole(path, "".join(json.dumps(trial) + "\n" for trial in trials).encode())


def missing(trials: Sequence[dict[str, Any]], each: int) -> list[str]:
    """Kinds of the trials to come, in turn until there are so many of each."""
    counts = [sum(trial["kind"] == kind for trial in trials) for kind in KINDS]
    return [kind for turn in range(each) for kind, count in zip(KINDS, counts, strict=True) if turn >= count]


def run(each: int, path: Path) -> None:
    """Make the trials that are missing; those of another design are given up."""
    commit, _ = gate.commits("HEAD")
    folders = [export(commit, SCRATCH / side) for side in ("base", "head")]
    trials = [trial for trial in read(path) if trial["design"] == DESIGN]
    for kind in missing(trials, each):
        outcome = compare(folders[0], folders[1], kind == "planted", lambda _: None)
        trials.append({"kind": kind, "commit": commit} | outcome)
        keep(trials, path)
        verdicts = " ".join(finding["verdict"] for finding in outcome["findings"])
        print(f"{len(trials)}. {kind}: {verdicts}; {outcome['minutes']} min, load {outcome['load']}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make trials from the command line."""
    parser = argparse.ArgumentParser(prog="trials", description="Compare HEAD with itself, and with more work planted.")
    parser.add_argument("--each", type=int, default=20, help="how many of either kind there are to be")
    try:
        run(parser.parse_args(arguments).each, RECORDS / describe()["machine"] / TRIALS)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
