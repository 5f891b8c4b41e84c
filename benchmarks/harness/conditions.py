"""Under which conditions a run of the benchmarks was timed: what else used the machine, and a control beside it.

A record goes to ``conditions.jsonl`` beside the run's results. A timing is believed if the record of the run that it
comes from says that the machine was quiet; without a record nothing is known, and nothing is believed.
"""

import json
import math
import os
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Self

from asv.util import UserError

RECORDS = "conditions.jsonl"
PROC = Path("/proc")
PERIOD = 5.0
"""Seconds between two looks."""
OTHERS = 0.25
"""Cores that other processes may use, in the mean over a run."""
SLOWER = 1.15
"""How much slower than the quickest tenth of a machine's runs the control may be."""
LOAD = 0.7
"""The load average before a run, where the share of other processes cannot be read."""


def control() -> float:
    """Seconds of a fixed piece of work that has nothing of vaebench in it: a checksum of 1 MiB, and plain Python."""
    block = bytes(2**20)
    start = time.perf_counter()
    for _ in range(8):
        zlib.crc32(block)
        sum(number * number for number in range(4000))
    return time.perf_counter() - start


@dataclass(frozen=True)
class Conditions:
    """Of one run.

    Attributes:
        commit: that was measured.
        began: seconds since 1970.
        ended: likewise.
        load: load averages over a minute, before and after.
        others: cores that processes outside the run used, in the mean; None where that cannot be read.
        control: seconds of the control, in the median over the run.
    """

    commit: str
    began: float
    ended: float
    load: tuple[float, float]
    others: float | None
    control: float


def reference(controls: Sequence[float]) -> float:
    """Seconds of the control on a machine at rest: the quickest tenth of its runs."""
    return quantiles(controls, n=10, method="inclusive")[0] if len(controls) > 1 else controls[0]


def disturbance(found: Conditions, rest: float) -> str:
    """Why a run is not to be compared, in a few words; empty if the machine was quiet."""
    if found.others is not None and found.others > OTHERS:
        return f"other processes used {found.others:.1f} cores"
    if found.others is None and found.load[0] > LOAD:
        return f"the load average was {found.load[0]:.1f} before it began"
    if found.control > SLOWER * rest:
        return f"the control took {found.control / rest:.2f} times its time at rest"
    return ""


def _ticks(stat: str) -> tuple[int, int]:
    """Parent and processor time of a process, ended children included, from its /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[1]), sum(map(int, fields[11:15]))


def busy(proc: Path = PROC) -> float:
    """Core-seconds that all processes, and other tenants of a virtual machine, have used since the start."""
    fields = (proc / "stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own(pid: int, proc: Path = PROC) -> float:
    """Core-seconds that a process and all that it started have used."""
    found = {}
    for path in proc.glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = _ticks(path.read_text())
        except (OSError, ValueError):  # it ended meanwhile
            continue
    family, size = {pid}, 0
    while size < len(family):
        size = len(family)
        family |= {child for child, (parent, _) in found.items() if parent in family}
    return sum(found[member][1] for member in family if member in found) / os.sysconf("SC_CLK_TCK")


class Watch:
    """Looks at the machine every few seconds, from a thread, until the block ends.

    ``with Watch(commit) as watch: ...`` leaves the record in ``watch.found``.
    """

    def __init__(self, commit: str, period: float = PERIOD, proc: Path = PROC):
        """Of a run at this commit."""
        self.commit, self.period, self.proc = commit, period, proc
        self.found: Conditions | None = None

    def __enter__(self) -> Self:
        """Begin."""
        self._controls = [control()]
        self._began, self._load, self._before = time.time(), os.getloadavg()[0], self._used()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _used(self) -> tuple[float, float, float] | None:
        """The clock, everybody's core-seconds, and our own."""
        if not (self.proc / "stat").exists():
            return None
        return time.monotonic(), busy(self.proc), own(os.getpid(), self.proc)

    def _look(self) -> None:
        while not self._over.wait(self.period):
            self._controls.append(control())

    def __exit__(self, *_: object) -> None:
        """End, and fill in what was found."""
        self._over.set()
        self._thread.join()
        after, others = self._used(), None
        if self._before and after:
            passed, everybody, ours = (b - a for a, b in zip(self._before, after, strict=True))
            others = round(max(0.0, everybody - ours) / max(passed, 1e-9), 3)
        load = (round(self._load, 2), round(os.getloadavg()[0], 2))
        self.found = Conditions(self.commit, self._began, time.time(), load, others, median(self._controls))


def record(found: Conditions, folder: Path) -> None:
    """Add a line to the records of a machine."""
    with (folder / RECORDS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(found)) + "\n")


def _amount(value: object) -> float:
    """A finite number that is not negative."""
    if not isinstance(value, int | float) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{value!r} is no amount")
    return float(value)


def _conditions(line: str) -> Conditions:
    fields = json.loads(line)
    before, after = fields.pop("load")
    others = fields.pop("others")
    amounts = {name: _amount(fields.pop(name)) for name in ("began", "ended", "control")}
    load = _amount(before), _amount(after)
    return Conditions(**fields, **amounts, load=load, others=None if others is None else _amount(others))


def read(folder: Path) -> list[Conditions]:
    """The records of a machine, in the order they were made."""
    path = folder / RECORDS
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    try:
        return [_conditions(line) for line in lines if line.strip()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} holds a line that is no record ({error}): repair or remove it.") from None
