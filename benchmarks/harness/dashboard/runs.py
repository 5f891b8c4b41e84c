"""What the first page says of timings, and of the machines and the runs that they come from."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.dashboard.changes import EARLIER, LATEST, fence
from benchmarks.harness.dashboard.history import UNKNOWN, Reading


@dataclass(frozen=True)
class Timing:
    """The latest believed value of a timing on a machine."""

    case: str
    machine: str
    value: float
    unit: str
    spread: tuple[float, float] | None
    runs: int
    fence: float | None


def timings(readings: Sequence[Reading], units: Mapping[str, str]) -> list[Timing]:
    """Timings of quiet runs, by machine, with the processor, versions and variables that it had last."""
    series: dict[tuple[str, str, tuple[object, ...]], list[Reading]] = defaultdict(list)
    for reading in readings:
        if reading.kind == "timed" and reading.there and not reading.doubt:
            conditions = (reading.processor, reading.environment, reading.variables)
            series[reading.machine, reading.case, conditions].append(reading)
    newest = {(machine, case): kept for (machine, case, _), kept in sorted(series.items(), key=_last)}
    found = []
    for (machine, case), kept in sorted(newest.items()):
        values = [reading.value for reading in kept if reading.value is not None]
        limit = fence(values[:-LATEST]) if len(values) >= EARLIER + LATEST else None
        unit = units.get(kept[-1].benchmark, "")
        found.append(Timing(case, machine, values[-1], unit, kept[-1].spread, len(values), limit))
    return found


def _last(item: tuple[object, Sequence[Reading]]) -> int:
    return item[1][-1].revision


@dataclass(frozen=True)
class Machine:
    """A kind of machine, and its runs by what is known of their conditions."""

    name: str
    description: str
    runs: Mapping[str, list[str]]


def machines(readings: Sequence[Reading], described: Mapping[str, Mapping[str, Any]]) -> list[Machine]:
    """All machines with results."""
    doubts: dict[str, dict[str, str]] = defaultdict(dict)
    for reading in readings:
        if reading.kind == "timed":
            doubts[reading.machine][reading.commit] = reading.doubt
    found = []
    for name, commits in sorted(doubts.items()):
        runs: dict[str, list[str]] = {"quiet": [], "busy": [], "unknown": []}
        for commit, doubt in commits.items():
            runs["unknown" if doubt == UNKNOWN else "busy" if doubt else "quiet"].append(
                commit[:8] + (f": {doubt}" if doubt and doubt != UNKNOWN else "")
            )
        about = described.get(name, {})
        words = [about.get("cpu", ""), f"{about.get('num_cpu', '?')} cores", about.get("ram", "")]
        words += [] if about.get("gpu", "none") == "none" else [about["gpu"]]
        found.append(Machine(name, ", ".join(filter(None, words)), runs))
    return found
