"""What a measured number is, and tests of a vector mean wherever an estimator is compared with a reference."""

import math
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from vaebench.support.skewness import reach, skewness_from, skewness_of, without_skewness


class Estimate(NamedTuple):
    """A value and its standard error."""

    value: float
    error: float


class Interval(NamedTuple):
    """Two limits."""

    low: float
    high: float


def stretched(skewness: float, freedom: int, level: float = 0.95) -> Interval:
    """How many standard errors an interval reaches below and above a mean of skewed values.

    Student's quantile t, on the side of the long tail times 1 + s (2 t + 1 / t) / (3 sqrt(n)), s the skewness of the
    n values: twice the first term of Cornish & Fisher's expansion of the studentised mean (Johnson, 1978), for the
    skewness of a sample is about half of its law's where that is large. Simulated coverages stand in
    `tests/test_coverage.py`.

    Args:
        skewness: of the values, s.
        freedom: n - 1.
        level: of the interval.

    Returns:
        Two numbers of errors, both positive.

    >>> [round(errors, 4) for errors in stretched(1.5, 15)]
    [2.1314, 3.3922]
    """
    t = student_quantile((1 + level) / 2, freedom)
    extra = abs(skewness) * (2 * t + 1 / t) / (3 * (freedom + 1) ** 0.5)
    return Interval(t * (1 + extra * (skewness < 0)), t * (1 + extra * (skewness > 0)))


def log_interval(estimate: Estimate, freedom: int, skewness: float = 0.0, level: float = 0.95) -> Interval:
    """An interval of a positive quantity: Student's, of its logarithm, stretched along the long tail.

    Of a trace variance from 32 to 1,024 gradients it covers the truth with 0.92 to 0.98, normal ones or as skewed as
    exponential ones and squares of normal ones; without the skewness, with 0.80 to 0.96.

    Args:
        estimate: positive value, and its standard error.
        freedom: degrees of freedom of the standard error.
        skewness: of the values whose mean it is, as by `vaebench.measures.jackknife.jackknife_skewness`.
        level: of the interval.

    Returns:
        The limits; 0 and infinity if the value is not positive.

    >>> [round(limit, 4) for limit in log_interval(Estimate(2.0, 0.2), 9)]
    [1.5951, 2.5077]
    """
    if not estimate.value > 0:
        return Interval(0.0, float("inf"))
    below, above = (errors * estimate.error / estimate.value for errors in stretched(skewness, freedom, level))
    return Interval(estimate.value * float(np.exp(-below)), estimate.value * float(np.exp(above)))


class MeanTest(NamedTuple):
    """Result of a test of a vector mean.

    Attributes:
        statistic: Hotelling's T^2, infinite where a coordinate without variance is off.
        p_value: probability of a larger one if the means agree.
    """

    statistic: float
    p_value: float


def hotelling(samples: Tensor, mean: Tensor, tolerance: float = 1e-9) -> MeanTest:
    """Test that independent samples (R, p), R > p, have a given mean (p,), known exactly (Hotelling, 1931).

    T is the largest Student's t along any direction, and as far in the tail skewed samples exceed its law: what their
    skewness along the direction that has it explains is left out (`without_skewness`).

    Directions in which the samples do not vary must agree to rounding, a `tolerance` relative to the largest
    coordinate, and do not enter the statistic. Samples that are not all finite have no mean, and never pass.

    Returns:
        T^2 = R d' S^{-1} d, less that, and its p-value from F(p, R - p), which is accurate for R >= 20 p.
    """
    samples, mean = samples.double(), mean.double()
    off, covariance = samples.mean(0) - mean, covariance_of(samples)
    return _t_squared(off, covariance, (samples,), len(samples), tolerance * _scale(samples))


def hotelling_two_sample(first: Tensor, second: Tensor, tolerance: float = 1e-9) -> MeanTest:
    """Test that two independent sets of samples, (R, p) and (R', p), have one mean, without assuming one covariance.

    The covariance of the difference is estimated from both; the degrees of freedom are those of the smaller set, which
    is conservative.

    Returns:
        The test, with the tolerance of `hotelling`.
    """
    first, second = first.double(), second.double()
    size = min(len(first), len(second))
    covariance = size * (covariance_of(first) / len(first) + covariance_of(second) / len(second))
    scale = max(_scale(first), _scale(second))
    return _t_squared(first.mean(0) - second.mean(0), covariance, (first, second), size, tolerance * scale)


def smallest_shift(samples: Tensor, direction: Tensor, level: float, power: float = 0.9) -> float:
    """The length of the smallest shift along a direction that Hotelling's test finds with a given probability (power).

    R samples (R, p) with covariance S and a shift d give F(p, R - p) the noncentrality R d' S^{-1} d. The statistic
    must be as large as their skewness along S^{-1} d demands.

    Returns:
        The length; 0 along a direction in part of which the samples do not vary, since there any shift is found.
    """
    samples, size = samples.double(), len(samples)
    values, vectors = torch.linalg.eigh(covariance_of(samples))
    unit = direction.double() / direction.double().norm().clamp(min=1e-300)
    varying = values > float(values[-1].clamp(min=0)) * 1e-14
    parts, rank = vectors.T @ unit, int(varying.sum())
    if rank == 0 or float(parts[~varying].norm()) > 1e-7:
        return 0.0
    parts, along = parts[varying], float((parts[varying].square() / values[varying]).sum())
    skewness = float(skewness_of(samples @ (vectors[:, varying] @ (parts / values[varying]))))
    scale = (size - rank) / ((size - 1) * rank)
    critical = math.sqrt(float(_special().fdtri(rank, size - rank, 1 - level)) / scale)
    needed = reach(critical, skewness, size) ** 2 * scale
    noncentrality = float(_special().ncfdtrinc(rank, size - rank, 1 - power, needed))
    return math.sqrt(noncentrality / (size * along))


def covariance_of(samples: Tensor) -> Tensor:
    """The sample covariance (p, p) of (R, p), R > p."""
    size, coordinates = samples.shape
    if size <= coordinates:
        raise ValueError(f"A test of a mean needs more samples than coordinates, got {size} of {coordinates}.")
    return samples.T.cov().reshape(coordinates, coordinates)


def _scale(samples: Tensor) -> float:
    return float(samples.abs().max())


def _t_squared(
    difference: Tensor, covariance: Tensor, sets: tuple[Tensor, ...], size: int, rounding: float
) -> MeanTest:
    if not (difference.isfinite().all() and covariance.isfinite().all()):
        return MeanTest(np.inf, 0.0)
    values, vectors = torch.linalg.eigh(covariance)
    along = vectors.T @ difference
    varying = values > max(float(values[-1]) * 1e-14, rounding**2)
    if (along[~varying].abs() > rounding).any():
        return MeanTest(np.inf, 0.0)
    rank = int(varying.sum())
    if rank == 0:
        return MeanTest(0.0, 1.0)
    direction = vectors[:, varying] @ (along[varying] / values[varying])
    largest = (size * (difference @ direction)).clamp(min=0).sqrt()
    statistic = float(without_skewness(largest, _skewness_along(direction, sets), 1)) ** 2
    scaled = statistic * (size - rank) / ((size - 1) * rank)
    return MeanTest(statistic, float(_special().fdtrc(rank, size - rank, scaled)))


def _skewness_along(direction: Tensor, sets: tuple[Tensor, ...]) -> Tensor:
    """The skewness of the mean of the first set along a direction, less that of the second, if there is one."""
    variance, third = torch.zeros_like(direction[0]), torch.zeros_like(direction[0])
    for sign, samples in zip((1, -1), sets, strict=False):
        off = (samples - samples.mean(0)) @ direction
        variance += off.square().mean() / len(off)
        third += sign * off.pow(3).mean() / len(off) ** 2
    return skewness_from(variance, third)


def student_quantile(probability: float, freedom: float) -> float:
    """Where Student's t lies below with a given probability.

    Args:
        probability: of lying below.
        freedom: degrees of freedom; infinite ones are the normal's.

    Returns:
        The quantile.

    >>> round(student_quantile(0.975, 9), 6), round(student_quantile(0.975, float("inf")), 6)
    (2.262157, 1.959964)
    """
    special = _special()
    return float(special.ndtri(probability) if np.isinf(freedom) else special.stdtrit(freedom, probability))


def student_tail(t: ArrayLike, freedom: float) -> np.ndarray:
    """The probability that Student's t exceeds numbers.

    Args:
        t: the numbers.
        freedom: degrees of freedom, finite.

    Returns:
        The probabilities, of the shape of t.

    >>> float(student_tail(2.262157, 9).round(6))
    0.025
    """
    return np.asarray(_special().stdtr(freedom, -np.asarray(t, dtype=np.float64)))


def _special() -> ModuleType:
    """scipy.special, which a machine that only times gradients need not have, and scipy.stats takes long to load."""
    from scipy import special

    return special
