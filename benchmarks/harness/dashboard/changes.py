"""Which numbers moved between measured commits, and which of these are regressions.

Exact and seeded numbers hardly differ between machines: all machines are one series. A number has moved at a commit if
it differs, on each machine that measured it, from what that machine had before; a machine that is new to it, or that
did not measure the commit before, is held against all that did as well. What others see to be as it was has not
risen. A seeded number that creeps is compared with the value that it crept from. A timing is compared with its own
machine's history alone, runs of a busy machine left out, and never by one run: the latest runs must all lie above a
fence drawn from the spread of those before.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import NamedTuple

from benchmarks.harness.dashboard.history import Host, Reading
from vaebench.support.kinds import moved

LATEST = 3
"""So many runs in a row must lie above the fence."""
EARLIER = 8
"""So many runs there must be before them."""
RANGES = 3
"""The fence lies so many interquartile ranges above the upper quartile, and nowhere below the slowest run. Together
this calls an unchanged series slower with probability 1.5e-4 (normal or Student's t with 3 degrees of freedom)."""

LAST_DIGITS = 1e-6
"""A share by which processors may differ: what is nearer to a value is that value."""

Reason = Callable[[str, int, int], tuple[str, ...]]
"""Why a case moved after a revision and up to another; empty if nobody has said."""


@dataclass(frozen=True)
class Change:
    """A number that moved.

    Attributes:
        reading: the first with the new value, or a later one that repeats it.
        before: the value.
        after: likewise.
        since: the last revision with the old value.
        until: the first one with the new.
        lasting: whether the latest value is on the new side still.
        reasons: from the triage file.
    """

    reading: Reading
    before: float
    after: float
    since: int
    until: int
    lasting: bool
    reasons: tuple[str, ...] = ()

    @property
    def worse(self) -> bool:
        """Lower is better everywhere."""
        return self.after > self.before


def _series(readings: Iterable[Reading], key: Callable[[Reading], object]) -> list[dict[int, list[Reading]]]:
    """By key, then by revision."""
    found: dict[object, dict[int, list[Reading]]] = defaultdict(lambda: defaultdict(list))
    for reading in readings:
        if reading.there:
            found[key(reading)][reading.revision].append(reading)
    return [dict(sorted(one.items())) for one in found.values()]


class Level(NamedTuple):
    """What a number is compared with: the value from which its next move counts, and the last revision that had it."""

    value: float
    revision: int


def _value(reading: Reading) -> float:
    return reading.value or 0.0


def _kept(level: Level | None, what: str, reading: Reading, revision: int) -> Level:
    """The level after a reading: a new one where it has moved; what is off by less does not shift it."""
    value = _value(reading)
    if level is None or moved(what, level.value, value):
        return Level(value, revision)
    same = abs(value - level.value) <= LAST_DIGITS * abs(level.value)
    return Level(level.value, revision) if same else level


def _references(levels: Mapping[Host, Level], before: Collection[Host], machine: Host) -> list[Level]:
    """Levels that a machine's value must differ from: its own, and those of the commit before if it was not there."""
    others = [] if machine in before else [levels[other] for other in before]
    return others + ([levels[machine]] if machine in levels else [])


Compared = Sequence[tuple[Reading, Sequence[Level]]]
"""The readings of a revision, one a machine, and what each is held against."""


def _direction(what: str, compared: Compared) -> int:
    """1 if every value has risen above all that it is held against, -1 if every one has fallen, else 0."""
    found = {moved(what, level.value, _value(reading)) for reading, levels in compared for level in levels}
    return found.pop() if len(found) == 1 else 0


def _least(compared: Compared, direction: int) -> tuple[Reading, float]:
    """The reading that moved least, and the value that it moved from."""
    nearest = max if direction == 1 else min
    options = [(reading, nearest(level.value for level in levels)) for reading, levels in compared]
    return min(options, key=lambda option: abs(_value(option[0]) - option[1]))


def _lasting(what: str, change: Change, known: Mapping[Host, Level], later: Sequence[Sequence[Reading]]) -> bool:
    """Whether a move is there still: by the latest readings, and by no machine that had a value before it denied.

    Args:
        what: kind of the number.
        change: the move.
        known: levels of the machines before it.
        later: the readings from the move on, by revision.
    """
    sign = 1 if change.worse else -1

    def still(reading: Reading) -> bool:
        base = known[reading.host].value if reading.host in known else change.before
        return moved(what, base, _value(reading)) == sign

    denied = not all(still(reading) for readings in later for reading in readings if reading.host in known)
    return all(still(reading) and (reading.host in known or not denied) for reading in later[-1])


def _moves(series: Mapping[int, Sequence[Reading]], reason: Reason) -> list[Change]:
    """Of one number, oldest first."""
    levels: dict[Host, Level] = {}
    before: set[Host] = set()
    found: list[Change] = []
    for place, (until, readings) in enumerate(series.items()):
        what, machines = readings[0].kind, {reading.host: reading for reading in readings}
        compared = [(reading, _references(levels, before, machine)) for machine, reading in machines.items()]
        if direction := _direction(what, compared):
            least, old = _least(compared, direction)
            since = max(level.revision for _, held in compared for level in held)
            if found and found[-1].worse != (direction == 1):
                found = _undone(found, what, _value(least))
            change = Change(least, old, _value(least), since, until, True, reason(least.case, since, until))
            lasting = _lasting(what, change, levels, list(series.values())[place:])
            found.append(replace(change, lasting=lasting))
        levels |= {machine: _kept(levels.get(machine), what, one, until) for machine, one in machines.items()}
        before = set(machines)
    return found


def _undone(earlier: Sequence[Change], what: str, value: float) -> list[Change]:
    """Earlier moves, those marked that a move back to a value undid."""
    return [
        replace(one, lasting=one.lasting and moved(what, one.before, value) == (1 if one.worse else -1))
        for one in earlier
    ]


def exact_changes(readings: Iterable[Reading], reason: Reason) -> list[Change]:
    """Every move of an exact or seeded number, oldest first, once whatever the number of machines."""
    chosen = [reading for reading in readings if reading.kind != "timed"]
    every = _series(chosen, lambda reading: (reading.case, reading.environment))
    found = [change for series in every for change in _moves(series, reason)]
    return sorted(found, key=lambda change: (change.until, change.reading.case))


def fence(earlier: Sequence[float]) -> float:
    """What a timing must exceed to be slower than those before."""
    low, _, high = quantiles(earlier, n=4, method="inclusive")
    return max(high + RANGES * (high - low), *earlier)


def timed_regressions(readings: Iterable[Reading]) -> list[Change]:
    """Timings whose latest runs all lie above the fence of the earlier ones, on quiet machines."""
    chosen = [reading for reading in readings if reading.kind == "timed" and not reading.doubt]
    found = []
    for series in _series(chosen, lambda reading: (reading.case, reading.environment, reading.host, reading.variables)):
        runs = [(revision, readings[-1]) for revision, readings in series.items()]
        earlier, latest = runs[:-LATEST], runs[-LATEST:]
        if len(earlier) < EARLIER:
            continue
        before = [_value(reading) for _, reading in earlier]
        after = [_value(reading) for _, reading in latest]
        if min(after) > fence(before):
            found.append(Change(latest[0][1], median(before), median(after), earlier[-1][0], latest[0][0], True))
    return sorted(found, key=lambda change: change.reading.case)


def regressions(readings: Sequence[Reading], reason: Reason) -> list[Change]:
    """What the Regressions page lists: rises that last and that nobody has explained."""
    exact = [c for c in exact_changes(readings, reason) if c.worse and c.lasting and not c.reasons]
    return exact + timed_regressions(readings)


def lost(readings: Iterable[Reading]) -> list[Reading]:
    """Cases that once had a number and have none now.

    What does not apply to one machine may apply to another, such as a CUDA device: it is lost where the same machine
    once had it. What fails is lost unless another machine has a number for that commit.
    """
    latest: dict[tuple[str, Host], Reading] = {}
    once, machines, newest = set(), set(), {}
    for reading in readings:
        latest[reading.case, reading.host] = reading
        if reading.there:
            once.add(reading.case)
            machines.add((reading.case, reading.host))
            newest[reading.case] = max(reading.revision, newest.get(reading.case, -1))
    found = {}
    for (case, machine), reading in latest.items():
        fails = reading.value is None and case in once
        if not reading.there and (fails or (case, machine) in machines) and newest[case] < reading.revision:
            found[case] = reading
    return list(found.values())
