"""Fail when a commit raises an exact counter: FLOPs, dispatched ops or peak bytes, never wall time.

asv measures BASE and HEAD, both with the benchmarks of the working tree and in one environment.
Exit status: 0 no counter rose, 1 one did or no longer works, 2 the question could not be asked.
"""

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from asv.commands.run import Run
from asv.config import Config
from asv.console import log
from asv.results import iter_results_for_machine_and_hash
from asv.util import ProcessError, UserError

from benchmarks.harness import machine

COUNTERS = r"\btrack_(flops|ops|peak_bytes)\b"
MEASURED = ["vaebench", "benchmarks", "pyproject.toml", "asv.conf.json"]
SCRATCH = Path(".asv/gate")
TOLERANCE = 1e-3

Values = Mapping[str, float | None]
"""Benchmark with its parameters -> value; None: it failed, nan: not applicable."""


@dataclass
class Comparison:
    """What became of every counter, a line each."""

    compared: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(base: Values, head: Values, tolerance: float = TOLERANCE) -> Comparison:
    """Judge HEAD's counters by BASE's: a rise beyond the tolerance fails, and so does a lost value."""
    outcome = Comparison()
    for case in sorted(base.keys() | head.keys()):
        before, after = base.get(case), head.get(case)
        measured = before is not None and not math.isnan(before)
        if after is None:
            line = f"{case}: fails, " + (f"was {before:.12g}" if measured else "and has no value at BASE either")
            (outcome.failures if measured else outcome.notes).append(line)
        elif math.isnan(after):
            outcome.notes.append(f"{case}: not applicable" + (f", was {before:.12g}" if measured else ""))
        elif not measured:
            outcome.notes.append(f"{case}: new, {after:.12g}")
        else:
            outcome.compared += 1
            if after - before > before * tolerance:
                outcome.failures.append(f"{case}: rose from {before:.12g} to {after:.12g}")
    return outcome


def git(*arguments: str) -> str | None:
    """Ask git; None when it has no answer."""
    answer = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def commits(base: str) -> tuple[str, str]:
    """Resolve BASE and HEAD, refusing a question whose answer would mislead."""
    before, after = (git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") for name in (base, "HEAD"))
    if before is None or after is None:
        raise UserError(f"{base!r} is not a commit of this repository: name one, as in BASE=main.")
    if changed := git("status", "--porcelain", "--", *MEASURED):
        raise UserError(f"HEAD is what is measured, and these changes are not in it: commit or stash\n{changed}")
    return before, after


def measure(hashes: list[str]) -> list[dict[str, float | None]]:
    """Let asv count at each commit, its results kept apart from the recorded history."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    conf = Config.load()
    conf.results_dir = str(SCRATCH)
    name = machine.ensure()
    python = f"{conf.environment_type}:{sys.version_info.major}.{sys.version_info.minor}"
    span = list(dict.fromkeys(hashes))
    Run.run(conf, span, bench=[COUNTERS], show_stderr=True, machine=name, env_spec=[python])
    log.flush()
    return [read(name, commit) for commit in hashes]


def read(name: str, commit: str) -> dict[str, float | None]:
    """Read the counters of one commit from asv's results, one entry for each set of parameters."""
    values = {}
    for result in iter_results_for_machine_and_hash(str(SCRATCH), name, commit):
        for benchmark in result.get_all_result_keys():
            params = result.get_result_params(benchmark)
            cases = (f"{benchmark}({', '.join(case)})" for case in product(*params))
            values |= zip(cases, result.get_result_value(benchmark, params), strict=True)
    return values


def report(outcome: Comparison) -> int:
    """Print the outcome and return the exit status it calls for."""
    for note in outcome.notes:
        print(f"note  {note}")
    for failure in outcome.failures:
        print(f"FAIL  {failure}")
    print(f"{outcome.compared} counters compared, {len(outcome.failures)} failures.")
    if not outcome.compared and not outcome.failures:
        print("Nothing was compared: no counter has a value at both commits.")
    return int(bool(outcome.failures) or not outcome.compared)


def main() -> int:
    """Run the gate from the command line."""
    parser = argparse.ArgumentParser(prog="gate", description="Compare HEAD's exact counters with BASE's.")
    parser.add_argument("base", metavar="BASE", help="the commit to compare with, such as main")
    log.enable()
    try:
        base, head = measure(list(commits(parser.parse_args().base)))
    except (UserError, ProcessError) as error:
        print(error, file=sys.stderr)
        return 2
    return report(compare(base, head))


if __name__ == "__main__":
    sys.exit(main())
