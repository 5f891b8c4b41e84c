"""What a measured number is, and tests of a vector mean wherever an estimator is compared with a reference."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import fdtrc
from torch import Tensor


class Estimate(NamedTuple):
    """A value and its standard error."""

    value: float
    error: float


class MeanTest(NamedTuple):
    """Result of a test of a vector mean.

    Attributes:
        statistic: Hotelling's T^2, infinite where a coordinate without variance is off.
        p_value: probability of a larger one if the means agree.
    """

    statistic: float
    p_value: float


def hotelling(samples: Tensor, mean: Tensor, tolerance: float = 1e-9) -> MeanTest:
    """Test that independent samples have a given mean (Hotelling, 1931).

    Directions in which the samples do not vary must agree to rounding, and do not enter the statistic. Samples
    that are not all finite have no mean, and never pass.

    Args:
        samples: (R, p), R > p; for an accurate p-value R >= 20 p.
        mean: (p,), the claimed mean, known exactly.
        tolerance: rounding allowed in directions without variance, relative to the largest coordinate.

    Returns:
        T^2 = R d' S^{-1} d and its p-value from F(p, R - p).
    """
    samples, mean = samples.double(), mean.double()
    return _t_squared(
        samples.mean(0) - mean, _covariance(samples), len(samples), len(samples) - 1, tolerance * _scale(samples)
    )


def hotelling_two_sample(first: Tensor, second: Tensor, tolerance: float = 1e-9) -> MeanTest:
    """Test that two independent sets of samples have one mean, without assuming one covariance.

    The covariance of the difference is estimated from both; the degrees of freedom are those of the smaller
    set, which is conservative.

    Args:
        first: (R, p).
        second: (R', p).
        tolerance: as in `hotelling`.

    Returns:
        The test.
    """
    first, second = first.double(), second.double()
    size = min(len(first), len(second))
    covariance = size * (_covariance(first) / len(first) + _covariance(second) / len(second))
    scale = max(_scale(first), _scale(second))
    return _t_squared(first.mean(0) - second.mean(0), covariance, size, size - 1, tolerance * scale)


def _covariance(samples: Tensor) -> Tensor:
    size, coordinates = samples.shape
    if size <= coordinates:
        raise ValueError(f"A test of a mean needs more samples than coordinates, got {size} of {coordinates}.")
    return samples.T.cov().reshape(coordinates, coordinates)


def _scale(samples: Tensor) -> float:
    return float(samples.abs().max())


def _t_squared(difference: Tensor, covariance: Tensor, size: int, freedom: int, rounding: float) -> MeanTest:
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
    statistic = size * float((along[varying].square() / values[varying]).sum())
    scaled = statistic * (freedom - rank + 1) / (freedom * rank)
    return MeanTest(statistic, float(fdtrc(rank, freedom - rank + 1, scaled)))
