"""One comparison: export two commits, time them in turn, and judge what came out."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from asv.util import UserError

from benchmarks.harness import machine
from benchmarks.harness.compare.cases import CASES
from benchmarks.harness.compare.interval import control_variate, interval

SCRATCH = Path(".asv/compare")
LAUNCHES, PAIRS, ROUNDS = 5, 8, 4
"""Starts of Python, pairs of processes in each, and samples of either process of every benchmark."""
DESIGN = {"launches": LAUNCHES, "pairs": PAIRS, "rounds": ROUNDS}
FALSE_ALARMS = 0.01
"""How often a comparison may call unchanged code slower or faster, on any of its benchmarks."""
INDIFFERENT = 0.005
"""What the whole interval must exceed: a smaller change may be one of the layout of code in memory."""
PINNED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "PYTHONDONTWRITEBYTECODE": "",  # vaebench is compiled once, not in every process
}


@dataclass(frozen=True)
class Finding:
    """What became of one benchmark.

    Attributes:
        benchmark: with its parameters.
        verdict: "slower", "faster", "same", "n/a" or "fails".
        ratio: time of head over that of base.
        low: end of its interval.
        high: end of its interval.
        share: of the control's ratio that was taken out.
        log_ratios: of every pair of processes.
        reason: why there is no ratio.
    """

    benchmark: str
    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    share: float | None = None
    log_ratios: tuple[float, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        """A line."""
        if self.ratio is None:
            return f"{self.verdict:<7}{self.benchmark}: {self.reason}"
        return f"{self.verdict:<7}{100 * (self.ratio - 1):+6.1f} %  {self.span}  {self.benchmark}"

    @property
    def span(self) -> str:
        """The interval in percent; empty without one."""
        if self.low is None or self.high is None:
            return ""
        return f"[{100 * (self.low - 1):+.1f}, {100 * (self.high - 1):+.1f}]"


def export(commit: str, folder: Path) -> Path:
    """Put the library of a commit, and nothing else, into a folder."""
    answer = subprocess.run(["git", "archive", "--format=zip", commit, "vaebench"], capture_output=True, check=False)
    if answer.returncode:
        raise UserError(f"Commit {commit[:8]} holds no vaebench/: there is nothing to time.")
    shutil.rmtree(folder, ignore_errors=True)
    zipfile.ZipFile(io.BytesIO(answer.stdout)).extractall(folder)
    return folder.resolve()


def pairs(base: Path, head: Path, planted: bool = False) -> Iterator[dict[str, Any]]:
    """Time both folders, pair of processes after pair of processes."""
    sizes = [str(PAIRS), str(ROUNDS), str(int(planted))]
    command = [sys.executable, "-m", "benchmarks.harness.compare.launch", str(base), str(head), *sizes]
    for _ in range(LAUNCHES):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | PINNED) as process:
            yield from map(json.loads, process.stdout or ())
        if process.returncode:
            raise UserError("A process that was to be timed ended early; what it said is above.")


def judge(found: Sequence[dict[str, Any]]) -> list[Finding]:
    """Judge every benchmark, at a level that makes the false alarms of all together `FALSE_ALARMS`."""
    timed = {case.name: [pair["cases"][case.name] for pair in found] for case in CASES}
    reasons = {name: next((r for r in results if isinstance(r, str)), "") for name, results in timed.items()}
    error = FALSE_ALARMS / 2 / max(1, sum(not reason for reason in reasons.values()))
    return [
        without(name, reasons[name]) if reasons[name] else judge_one(name, np.array(results), error)
        for name, results in timed.items()
    ]


def without(name: str, reason: str) -> Finding:
    """A benchmark that has no ratio: n/a, unless head breaks what base can do."""
    applies = reason.startswith("head") and "NotImplementedError" not in reason
    return Finding(name, "fails" if applies else "n/a", reason=reason)


def judge_one(name: str, rounds: np.ndarray, error: float) -> Finding:
    """A verdict on seconds of shape (P, R, 4)."""
    values, share = control_variate(rounds)
    low, high = interval(values, error)
    ratio, lower, upper = (round(float(np.exp(end)), 5) for end in (values.mean(), low, high))
    return Finding(name, verdict(low, high), ratio, lower, upper, round(share, 3), tuple(values.round(5).tolist()))


def verdict(low: float, high: float) -> str:
    """What an interval of the log-ratio says."""
    margin = np.log1p(INDIFFERENT)
    return "slower" if low > margin else "faster" if high < -margin else "same"


def conditions() -> dict[str, Any]:
    """What the numbers hold under."""
    return {
        "machine": machine.describe(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": sys.version.split()[0],
        "torch": version("torch"),
        "numpy": version("numpy"),
        "pinned": PINNED | {"cores": 1, "torch threads": 1, "clock": "time.process_time"},
        "design": DESIGN,
        "rule": {"false alarms": FALSE_ALARMS, "indifferent": INDIFFERENT},
    }


def compare(base: Path, head: Path, planted: bool, progress: Callable[[int], None]) -> dict[str, Any]:
    """Time and judge, and say under which conditions; `progress` is told the number of pairs done."""
    begin, started, before = time.monotonic(), time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()), conditions()
    found = []
    for pair in pairs(base, head, planted):
        found.append(pair)
        progress(len(found))
    return before | {
        "began": started,
        "minutes": round((time.monotonic() - begin) / 60, 2),
        "load after": [round(load, 2) for load in os.getloadavg()],
        "first": [pair["first"] for pair in found],
        "findings": [asdict(finding) for finding in judge(found)],
    }
