"""What a claim comes to: a statistic that must not exceed its bound, and how often chance alone would make it."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from vaebench.gates import Verdict
from vaebench.gates.verdict import judge
from vaebench.support.statistics import hotelling
from vaebench.theory.series import Inequality

RARE = 1e-5  # false-alarm rate of one test of a mean; there are fewer than a hundred of them


def finding(
    claim: str, seeds: int, statistic: float, bound: float, false_alarm: float, details: dict[str, Any]
) -> Verdict:
    """The verdict on one claim, from a fixed number of independent members or replicates."""
    return judge("convergence", claim, statistic, bound, false_alarm, {"seeds": seeds} | details)


def not_negative(claim: str, margin: ArrayLike, **details: Any) -> Verdict:
    """The expectation of a margin, one per seed, is not negative: a one-sided t test; its error by the delta method."""
    samples = np.asarray(margin, dtype=np.float64)
    size = len(samples)
    error = samples.std(ddof=1) / np.sqrt(size)
    bound, t = float(stats.t.isf(RARE, size - 1)), float(-samples.mean() / error)
    kept = details | {"margin": float(samples.mean()), "standard_error": float(np.sqrt(1 + t**2 / (2 * (size - 1))))}
    return finding(claim, size, t, bound, RARE, kept)


def mean_is(claim: str, samples: ArrayLike, value: float, tolerance: float, **details: Any) -> Verdict:
    """A mean over seeds lies within a tolerance; the false-alarm rate is what the tolerance makes it."""
    found = np.asarray(samples, dtype=np.float64)
    error = float(found.std(ddof=1) / np.sqrt(len(found)))
    rate = float(2 * stats.t.sf(tolerance / error, len(found) - 1))
    off = float(abs(found.mean() - value))
    return finding(claim, len(found), off, tolerance, rate, details | {"standard_error": error})


def number_is(
    claim: str, seeds: int, estimate: float, error: float, value: float, bias: float, **details: Any
) -> Verdict:
    """An estimate with a standard error lies within 4.5 of them, and `bias` for asymptotics, of a value."""
    bound = bias + 4.5 * error
    kept = details | {"estimate": estimate, "standard_error": error, "value": value}
    return finding(claim, seeds, abs(estimate - value), bound, float(2 * stats.norm.sf(4.5)), kept)


def within_ratio(claim: str, sides: Inequality, limit: float, **details: Any) -> Verdict:
    """Right over left at the last step, means over seeds, by the delta method; a left side below zero says nothing."""
    left, right = sides.left[:, -1], sides.right[:, -1]
    if left.mean() <= 0:
        return finding(claim, len(left), np.inf, limit, 0.0, details)
    ratio = float(right.mean() / left.mean())
    error = float((right - ratio * left).std(ddof=1) / left.mean() / np.sqrt(len(left)))
    rate = float(stats.t.sf((limit - ratio) / error, len(left) - 1))
    return finding(claim, len(left), ratio, limit, rate, details | {"standard_error": error})


def vector_mean_is(claim: str, samples: Tensor, mean: Tensor, **details: Any) -> Verdict:
    """Hotelling's T^2 of independent samples (R, p) against a mean known exactly; R >= 20 p."""
    size, p = samples.shape
    rate = 1e-8  # its tails are not quite those of F where the samples are not normal
    bound = p * (size - 1) / (size - p) * float(stats.f.isf(rate, p, size - p))
    return finding(claim, size, hotelling(samples, mean).statistic, bound, rate, details)
