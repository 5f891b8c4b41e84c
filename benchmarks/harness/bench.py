"""`python -m benchmarks.harness.bench`: let asv measure HEAD, and record under which conditions it did.

Exit status: 0 everything was measured, 1 no benchmark has a value, 2 some benchmarks failed or nothing could be asked.
"""

import math
import subprocess
import sys
from pathlib import Path

from asv.commands.run import Run
from asv.config import Config
from asv.console import log
from asv.results import iter_results_for_machine_and_hash
from asv.util import ProcessError, UserError

from benchmarks.harness import conditions, machine
from benchmarks.harness.conditions import Conditions, Watch


def head() -> str:
    """The commit that is measured, in full."""
    asked = ["git", "rev-parse", "--verify", "--quiet", "HEAD^{commit}"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise UserError("This is no git repository with a commit: there is nothing to measure.")
    return answer.stdout.strip()


def values(results_dir: str, name: str, commit: str) -> list[float | None]:
    """All values of a commit: None where a benchmark failed, NaN where it does not apply."""
    found: list[float | None] = []
    for result in iter_results_for_machine_and_hash(results_dir, name, commit):
        for benchmark in result.get_all_result_keys():
            found += result.get_result_value(benchmark, result.get_result_params(benchmark))
    return found


def hollow(found: list[float | None]) -> bool:
    """Whether there is no number among the values."""
    return all(value is None or math.isnan(value) for value in found)


def say(found: Conditions, folder: Path) -> str:
    """What the reader of the timings must know."""
    rest = conditions.reference([one.control for one in conditions.read(folder)])
    why = conditions.disturbance(found, rest)
    if not why:
        return "The machine was quiet: the timings of this run count."
    return f"The machine was busy ({why}): the timings of this run are marked, and nothing is concluded from them."


def measure() -> int:
    """Run, record and tell."""
    conf, name, commit = Config.load(), machine.ensure(), head()
    python = f"{conf.environment_type}:{sys.version_info.major}.{sys.version_info.minor}"
    with Watch(commit) as watch:
        status = Run.run(conf, "HEAD^!", show_stderr=True, machine=name, env_spec=[python])
    log.flush()
    folder = Path(conf.results_dir) / name
    if watch.found is not None and folder.is_dir():
        conditions.record(watch.found, folder)
        print(say(watch.found, folder))
    if status:
        print("Some benchmarks failed: asv names them above.", file=sys.stderr)
        return 2
    if hollow(values(conf.results_dir, name, commit)):
        print("No benchmark has a value, neither of this commit nor by this installation.", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run the benchmarks from the command line."""
    log.enable()
    try:
        return measure()
    except (UserError, ProcessError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
