"""Which numbers moved between measured commits, and which of these are regressions.

Exact and seeded numbers hardly differ between machines: all machines are one series, in which a number has risen if it
is larger at a commit, on each machine, than it was at the one measured before, on any. A timing is compared with its
own machine's history alone, runs of a busy machine left out, and never by one run: the latest runs must all lie above
a fence drawn from the spread of those before.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles

from benchmarks.harness.dashboard.history import Reading
from vaebench.support.kinds import moved

LATEST = 3
"""So many runs in a row must lie above the fence."""
EARLIER = 8
"""So many runs there must be before them."""
RANGES = 3
"""The fence lies so many interquartile ranges above the upper quartile, and nowhere below the slowest run. Together
this calls an unchanged series slower with probability 1.5e-4 (normal or Student's t with 3 degrees of freedom)."""

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


def _values(readings: Sequence[Reading]) -> list[float]:
    return [reading.value for reading in readings if reading.value is not None]


def exact_changes(readings: Iterable[Reading], reason: Reason) -> list[Change]:
    """Every move of an exact or seeded number, oldest first, once whatever the number of machines."""
    chosen = [reading for reading in readings if reading.kind != "timed"]
    found = []
    for series in _series(chosen, lambda reading: (reading.case, reading.environment)):
        revisions = list(series)
        for since, until in pairwise(revisions):
            before, after = _values(series[since]), _values(series[until])
            what = series[until][0].kind
            up, down = moved(what, max(before), min(after)) == 1, moved(what, min(before), max(after)) == -1
            if up or down:
                old, new = (max(before), min(after)) if up else (min(before), max(after))
                lasting = moved(what, old, _values(series[revisions[-1]])[0]) == (1 if up else -1)
                why = reason(series[until][0].case, since, until)
                found.append(Change(series[until][0], old, new, since, until, lasting, why))
    return sorted(found, key=lambda change: (change.until, change.reading.case))


def fence(earlier: Sequence[float]) -> float:
    """What a timing must exceed to be slower than those before."""
    low, _, high = quantiles(earlier, n=4, method="inclusive")
    return max(high + RANGES * (high - low), *earlier)


def timed_regressions(readings: Iterable[Reading]) -> list[Change]:
    """Timings whose latest runs all lie above the fence of the earlier ones, on quiet machines."""
    chosen = [reading for reading in readings if reading.kind == "timed" and not reading.doubt]
    found = []
    for series in _series(chosen, lambda reading: (reading.case, reading.environment, reading.machine)):
        runs = [(revision, readings[-1]) for revision, readings in series.items()]
        earlier, latest = runs[:-LATEST], runs[-LATEST:]
        if len(earlier) < EARLIER:
            continue
        before = _values([reading for _, reading in earlier])
        after = _values([reading for _, reading in latest])
        if min(after) > fence(before):
            found.append(Change(latest[0][1], median(before), median(after), earlier[-1][0], latest[0][0], True))
    return sorted(found, key=lambda change: change.reading.case)


def regressions(readings: Sequence[Reading], reason: Reason) -> list[Change]:
    """What the Regressions page lists: rises that last and that nobody has explained."""
    exact = [c for c in exact_changes(readings, reason) if c.worse and c.lasting and not c.reasons]
    return exact + timed_regressions(readings)


def lost(readings: Iterable[Reading]) -> list[Reading]:
    """Cases that once had a number, and have none in the latest run of their benchmark."""
    latest: dict[str, Reading] = {}
    once = set()
    for reading in readings:
        latest[reading.case] = reading
        if reading.there:
            once.add(reading.case)
    return [reading for case, reading in latest.items() if case in once and not reading.there]
