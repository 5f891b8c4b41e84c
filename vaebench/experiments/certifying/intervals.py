"""Numbers with 95 % intervals: medians by order statistics, ratios of means by linearisation."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A number with a 95 % interval.

    Attributes:
        value: the number.
        low: lower limit.
        high: upper limit.
    """

    value: float
    low: float
    high: float

    def settled(self, other: float = 1.0) -> bool:
        """Whether the interval excludes a value."""
        return not self.low <= other <= self.high


def median(values: np.ndarray) -> Interval:
    """The median with its distribution-free 95 % interval: order statistics, by the binomial of 1/2.

    Args:
        values: independent, (n,).

    Returns:
        The interval; of fewer than six values its coverage is 1 - 2^(1 - n) at most, which is less.

    >>> median(np.arange(1.0, 11.0))
    Interval(value=5.5, low=2.0, high=9.0)
    """
    ordered, n = np.sort(values), len(values)
    below = int(stats.binom.ppf((1 - CONFIDENCE) / 2, n, 0.5))
    rank = max(below, 1)
    return Interval(float(np.median(values)), float(ordered[rank - 1]), float(ordered[n - rank]))


def mean_ratio(top: np.ndarray, bottom: np.ndarray) -> Interval:
    """A ratio of means over seeds, paired, with Student's interval by linearisation.

    Args:
        top: by seed, (S,).
        bottom: of the same seeds, (S,), of one sign in the mean.

    Returns:
        The interval.

    >>> mean_ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0]))
    Interval(value=2.0, low=2.0, high=2.0)
    """
    value = float(top.mean() / bottom.mean())
    off = (top - value * bottom) / bottom.mean()
    wide = float(stats.t.isf((1 - CONFIDENCE) / 2, len(off) - 1) * off.std(ddof=1) / math.sqrt(len(off)))
    return Interval(value, value - wide, value + wide)
