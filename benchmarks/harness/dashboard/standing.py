"""How the guarantee stands at the last commit that measured it, and how it stood before."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.dashboard.charts import Curve, Point, human
from benchmarks.harness.dashboard.history import Reading

ENVELOPE, IDENTITY = "convergence.Sgd.track_envelope_ratio", "convergence.Sgd.track_identity_error"
LIMIT = 1.0
"""Of the envelope ratio: above it the theorem's bound is violated."""


@dataclass(frozen=True)
class Standing:
    """What the last commit with a benchmark says.

    Attributes:
        worst: the largest value, infinite where one is; None where there is none.
        missing: how many settings have no value there: they failed, or do not apply.
        settings: how many there are.
        commit: in full; empty where no commit measured it.
    """

    worst: float | None
    missing: int
    settings: int
    commit: str


def standing(readings: Sequence[Reading], benchmark: str) -> Standing:
    """The worst of all settings and machines at the last commit that measured any of them."""
    chosen = [reading for reading in readings if reading.benchmark == benchmark]
    if not chosen:
        return Standing(None, 0, 0, "")
    last = [reading for reading in chosen if reading.revision == chosen[-1].revision]
    cases = {reading.case for reading in last}
    found = [(reading.case, reading.value) for reading in last if reading.value is not None]
    values = [(case, value) for case, value in found if not math.isnan(value)]
    missing = len(cases - {case for case, _ in values})
    return Standing(max((value for _, value in values), default=None), missing, len(cases), chosen[-1].commit)


def curves_of(readings: Sequence[Reading], benchmark: str) -> tuple[list[Curve], list[str]]:
    """Curves of a benchmark by its parameter, one value for each measured commit, and the commits."""
    chosen = [reading for reading in readings if reading.benchmark == benchmark and reading.there]
    commits = list(dict.fromkeys(reading.commit for reading in chosen))
    curves: dict[str, dict[str, Reading]] = defaultdict(dict)
    for reading in chosen:
        label = ", ".join(f"{name} = {value}" for name, value in reading.params.items())
        old = curves[label].get(reading.commit)
        if old is None or (reading.value or 0) > (old.value or 0):
            curves[label][reading.commit] = reading

    def point(reading: Reading, label: str) -> Point:
        value = float(reading.value or 0)
        return Point(commits.index(reading.commit), value, f"{label}: {human(value)} at {reading.commit[:8]}")

    return [Curve(label, [point(one, label) for one in kept.values()]) for label, kept in curves.items()], commits
