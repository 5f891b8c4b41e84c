"""How often a comparison errs: counts of the real trials, and what resampling their pairs of processes adds.

A comparison that was not made is so many recorded pairs in a row from a random place, so that a noisy minute stays
one, each exchanged or not by a fair coin, with a slowdown added to every logarithm.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.compare.cases import QUANTUM
from benchmarks.harness.compare.interval import interval
from benchmarks.harness.compare.job import FALSE_ALARMS, verdict

SIZES = (10, 16, 24, 32, 40)
EFFECTS = np.arange(0, 10.25, 0.5)
DRAWS = 4000
POWER = 0.95
PLANTED = np.log1p(1 / QUANTUM)
Trials = Sequence[dict[str, Any]]


class Point(NamedTuple):
    """Of the curve.

    Attributes:
        pairs: of processes in a comparison.
        slowdown: in percent.
        benchmark: its name, or "any" for a wrong verdict on any of them, slower or faster.
        probability: of the verdict "slower"; with "any", of a false alarm.
    """

    pairs: int
    slowdown: float
    benchmark: str
    probability: float


def log_ratios(trial: dict[str, Any]) -> np.ndarray:
    """Of all pairs and benchmarks, (P, benchmarks), without what was planted."""
    found = np.array([finding["log_ratios"] for finding in trial["findings"]]).T
    return found - PLANTED * (trial["kind"] == "planted")


def intervals(pairs: np.ndarray) -> np.ndarray:
    """Of every benchmark, (benchmarks, 2), as a comparison with these pairs would find them."""
    return np.array([interval(column, FALSE_ALARMS / 2 / pairs.shape[1]) for column in pairs.T])


def resampled(recorded: np.ndarray, size: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Intervals of comparisons that were not made, without a slowdown, (draws, benchmarks, 2)."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(len(recorded) - size + 1, size=draws)
    signs = rng.choice([-1, 1], (draws, size, 1))
    return np.array([intervals(recorded[s : s + size] * sign) for s, sign in zip(starts, signs, strict=True)])


def false_alarms(ends: np.ndarray) -> float:
    """How often intervals of unchanged code, (draws, benchmarks, 2), call any benchmark slower or faster."""
    return float(np.mean([any(verdict(*one) != "same" for one in draw) for draw in ends]))


def curve(trials: Trials, sizes: Sequence[int] = SIZES, draws: int = DRAWS) -> list[Point]:
    """Probability of each verdict, by number of pairs, slowdown and benchmark."""
    recorded = np.concatenate([log_ratios(trial) for trial in trials])
    names = [finding["benchmark"] for finding in trials[0]["findings"]]
    points = []
    for size in sizes:
        ends = resampled(recorded, size, draws)
        points.append(Point(size, 0, "any", false_alarms(ends)))
        for effect in EFFECTS:
            moved = ends + np.log1p(effect / 100)
            found = [np.mean([verdict(*one) == "slower" for one in moved[:, number]]) for number in range(len(names))]
            points += [Point(size, effect, name, float(f)) for name, f in zip(names, found, strict=True)]
    return points


def smallest(points: Sequence[Point], size: int, benchmark: str) -> float:
    """The smallest slowdown of the curve, in percent, from which on it is found often enough."""
    chosen = [point for point in points if (point.pairs, point.benchmark) == (size, benchmark)]
    missed = [point.slowdown for point in chosen if point.probability < POWER]
    return min((point.slowdown for point in chosen if point.slowdown > max(missed, default=-1)), default=np.inf)
