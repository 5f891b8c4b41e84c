"""Fail when a commit raises or loses an exact counter (FLOPs, dispatched ops, bytes), never because of wall time.

asv measures BASE and HEAD, both with the benchmarks of the working tree and in one environment. BASE's own benchmarks
are listed as well, so that one that HEAD deletes is noticed. What is said in `benchmarks/triage.toml` is no failure.
Exit status: 0 no counter rose, 1 one did or was lost, 2 the question could not be asked.
"""

import argparse
import io
import shutil
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

from asv.benchmarks import Benchmarks
from asv.commands.run import Run
from asv.config import Config
from asv.console import log
from asv.environment import get_environments
from asv.repo import get_repo
from asv.results import iter_results_for_machine_and_hash
from asv.util import ProcessError, UserError

from benchmarks.harness import machine, triage
from benchmarks.harness.counters import compare, markdown, report
from vaebench.support.kinds import EXACT

MEASURED = ["vaebench", "benchmarks", "pyproject.toml", "asv.conf.json"]
SCRATCH = Path(".asv/gate")
COMMENT = Path(".asv/gate/comment.md")
OLD = Path(".asv/gate-base")


def git(*arguments: str) -> str | None:
    """Ask git; None when it has no answer."""
    answer = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def commits(base: str) -> tuple[str, str]:
    """Resolve BASE and HEAD, refusing a question whose answer would mislead."""
    before, after = (
        git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}") for name in (base, "HEAD")
    )
    if before is None or after is None:
        raise UserError(f"{base!r} is not a commit of this repository: name one, as in BASE=main.")
    if changed := git("status", "--porcelain", "--", *MEASURED):
        raise UserError(f"HEAD is what is measured, and these changes are not in it: commit or stash\n{changed}")
    return before, after


def measure(hashes: list[str]) -> list[dict[str, float | None]]:
    """Let asv count at each commit, its results kept apart from the recorded history."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    conf, name = _config(), machine.ensure()
    span = list(dict.fromkeys(hashes))
    Run.run(conf, span, bench=[EXACT.pattern], show_stderr=True, machine=name, env_spec=_python(conf))
    log.flush()
    return [read(name, commit) for commit in hashes]


def _config() -> Config:
    conf = Config.load()
    conf.results_dir = str(SCRATCH)
    return conf


def _python(conf: Config) -> list[str]:
    return [f"{conf.environment_type}:{sys.version_info.major}.{sys.version_info.minor}"]


def listed(commit: str) -> list[str]:
    """What the benchmarks of a commit count, by their own code: names with parameters."""
    archive = subprocess.run(["git", "archive", "--format=zip", commit, "benchmarks"], capture_output=True, check=False)
    if archive.returncode:
        raise UserError(f"Commit {commit[:8]} holds no benchmarks/: there is nothing to compare with.")
    shutil.rmtree(OLD, ignore_errors=True)
    zipfile.ZipFile(io.BytesIO(archive.stdout)).extractall(OLD)
    conf = _config()
    conf.benchmark_dir = str((OLD / "benchmarks").resolve())
    environments = list(get_environments(conf, _python(conf)))
    found = Benchmarks.discover(conf, get_repo(conf), environments, [commit], regex=[EXACT.pattern])
    log.flush()
    return [case for name, benchmark in found.items() for case in cases(name, benchmark["params"])]


def cases(benchmark: str, params: list[list[str]]) -> list[str]:
    """A benchmark's name with each of its sets of parameters."""
    return [f"{benchmark}({', '.join(chosen)})" for chosen in product(*params)]


def read(name: str, commit: str) -> dict[str, float | None]:
    """Read the counters of one commit from asv's results, one entry for each set of parameters."""
    values = {}
    for result in iter_results_for_machine_and_hash(str(SCRATCH), name, commit):
        for benchmark in result.get_all_result_keys():
            params = result.get_result_params(benchmark)
            values |= zip(cases(benchmark, params), result.get_result_value(benchmark, params), strict=True)
    return values


def main() -> int:
    """Run the gate from the command line."""
    parser = argparse.ArgumentParser(prog="gate", description="Compare HEAD's exact counters with BASE's.")
    parser.add_argument("base", metavar="BASE", help="the commit to compare with, such as main")
    log.enable()
    try:
        before, after = commits(parser.parse_args().base)
        known, between = triage.read(), (git("rev-list", f"{before}..{after}") or "").split()
        old = listed(before)
        base, head = measure([before, after])
    except (UserError, ProcessError) as error:
        print(error, file=sys.stderr)
        return 2
    outcome = compare(base, head, old, known, between)
    COMMENT.write_text(markdown(outcome), "utf-8")
    status = report(outcome)
    print(f"As a comment for a pull request: {COMMENT}.")
    return status


if __name__ == "__main__":
    sys.exit(main())
