"""Tests of means of skewed numbers, for which Student's law fails far in the tail, where the gates' levels are."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SHORTFALL = 4 / 3  # of a law's skewness over that of a sample whose mean lies far out on the short side


def without_skewness(t: Tensor, skewness: Tensor, count: int) -> Tensor:
    """|t| of a mean of skewed numbers, such that Student's law holds for it in the tail.

    The transformation of Hall (1992), with w = t / sqrt(n): sqrt(n) ((1 + s w / 3)^3 - 1) / s + s / (6 sqrt(n)), which
    is t (1 + u + u^2 / 3) + s / (6 sqrt(n)), u = s w / 3; of it and of |t|, the smaller. Where a mean of n numbers with
    skewness s lies on the side without the long tail, few large numbers were drawn, their standard deviation is too
    small and |t| too large. So is their skewness too small: it is taken 4/3 times. By Student's law, means of 800
    lognormal numbers are 600 times as often beyond the level 1e-8 as they should be, 7 times with the sample's own
    skewness and 0.7 times by this; of 800 exponential ones 24, 0.6 and 0.1 times (`tests/test_skewness.py`).

    Args:
        t: studentised means, (...).
        skewness: of the numbers, s, (...).
        count: n; 1 where the skewness is that of the mean itself, s / sqrt(n).

    Returns:
        The numbers to be held against Student's t, (...), not negative.

    >>> without_skewness(torch.tensor([-3.0, 3.0]), torch.tensor([1.5, 1.5]), 100)
    tensor([2.4067, 3.0000])
    """
    of_mean = SHORTFALL * skewness / count**0.5
    bent = of_mean * t / 3
    turned = t * (1 + bent + bent.square() / 3) + of_mean / 6
    return torch.minimum(t.abs(), turned.abs())


def reach(critical: float, skewness: float, count: int) -> float:
    """How large |t| must be for `without_skewness` to exceed a number on either side.

    Args:
        critical: the number.
        skewness: of the numbers whose mean it is.
        count: of them.

    Returns:
        The larger of the two limits.

    >>> round(reach(2.406667, 1.5, 100), 4), round(reach(2.0, 0.0, 100), 4)
    (3.0, 2.0)
    """
    root, skewed = count**0.5, max(SHORTFALL * abs(skewness), 1e-6)
    left = 1 - skewed * (critical + skewed / (6 * root)) / root
    return max(critical, 3 * root * (1 - float(np.cbrt(left))) / skewed)


def skewness_of(values: Tensor) -> Tensor:
    """The skewness of each column of (n, ...), with divisor n; 0 of a column without variance."""
    off = values - values.mean(0)
    return skewness_from(off.square().mean(0), off.pow(3).mean(0))


def skewness_from(variance: Tensor, third: Tensor) -> Tensor:
    """The skewness by the second and third central moments; 0 where there is no variance."""
    return torch.where(variance > 0, third / variance.clamp(min=1e-300) ** 1.5, 0.0).nan_to_num()


class Skewed(NamedTuple):
    """A measured number, as a test of its mean needs it.

    Attributes:
        value: the number.
        error: its standard error.
        skewness: of the number, not of those whose mean it is: theirs over the root of how many they are.
    """

    value: float
    error: float
    skewness: float

    @classmethod
    def mean(cls, values: Tensor) -> "Skewed":
        """The mean of n >= 2 independent numbers (n,), with its error."""
        root = len(values) ** 0.5
        return cls(float(values.mean()), float(values.std()) / root, float(skewness_of(values)) / root)

    def log(self) -> "Skewed":
        """The logarithm, as a test needs it.

        To first order log(v / V) over its error e is t + e t^2 / 2, t the studentised v, and a skewness of s bends t by
        - s t^2 / 3: the logarithm is tested as if its skewness were s - 3 e / 2.

        Returns:
            Of a positive number; minus infinity without error of any other.

        >>> [round(x, 4) for x in Skewed(2.0, 0.2, 0.3).log()]
        [0.6931, 0.1, 0.15]
        """
        if not (self.value > 0 and math.isfinite(self.error)):
            return Skewed(-math.inf, 0.0, 0.0)
        relative = self.error / self.value
        return Skewed(math.log(self.value), relative, self.skewness - 1.5 * relative if relative > 0 else 0.0)

    def less(self, other: "Skewed", times: float = 1.0) -> "Skewed":
        """The difference from a multiple of an independent one."""
        error, theirs = math.hypot(self.error, times * other.error), (times * other.error) ** 3
        cubes = self.skewness * self.error**3 - other.skewness * theirs
        return Skewed(self.value - times * other.value, error, cubes / error**3 if error > 0 else 0.0)

    def score(self) -> float:
        """|value| over its error, less what skewness explains; infinite of a number that has no error and is not 0."""
        if not self.error > 0:
            return 0.0 if self.value == 0 else math.inf
        t, skewness = (torch.tensor(one, dtype=torch.float64) for one in (self.value / self.error, self.skewness))
        return float(without_skewness(t, skewness, 1))
