"""Tests of a vector mean: calibrated where the means agree, powerful where they do not.

The draws are fixed by their seeds; before they were fixed, each calibration test failed a correct implementation
with probability 1e-4.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from vaebench.support.statistics import hotelling, hotelling_two_sample

REPEATS, COORDINATES = 300, 4
FALSE_ALARM = 1e-4


def correlated(generator: torch.Generator, size: int, scale: float = 1.0) -> Tensor:
    """Mean-zero Gaussians whose coordinates are correlated and of scales from 1 to 1000."""
    root = torch.tensor([[1.0, 0, 0, 0], [5, 10, 0, 0], [50, 20, 100, 0], [0, 100, 500, 1000]], dtype=torch.float64)
    return scale * torch.randn(size, COORDINATES, generator=generator, dtype=torch.float64) @ root.T


def one_sample(generator: torch.Generator) -> float:
    return hotelling(correlated(generator, 40), torch.zeros(COORDINATES)).p_value


def two_samples(sizes: tuple[int, int], generator: torch.Generator) -> float:
    first, second = correlated(generator, sizes[0]), correlated(generator, sizes[1], 3.0).flip(1)
    return hotelling_two_sample(first, second).p_value


def test_one_sample_p_values_are_uniform(generator):
    p_values = [one_sample(generator) for _ in range(REPEATS)]
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM


@pytest.mark.parametrize("sizes", [(60, 60), (50, 200), (400, 8)], ids=str)
def test_two_sample_p_values_are_not_too_small_with_unequal_covariances(sizes, generator):
    p_values = [two_samples(sizes, generator) for _ in range(REPEATS)]
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > FALSE_ALARM


def test_two_large_samples_have_uniform_p_values(generator):
    p_values = [two_samples((2000, 2000), generator) for _ in range(REPEATS)]
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM


def test_one_coordinate_is_students_t(generator):
    half = torch.randn(15, 1, generator=generator, dtype=torch.float64)
    samples = torch.cat([half, -half])  # skewed samples have a smaller statistic
    ours, theirs = hotelling(samples, torch.tensor([0.2])), stats.ttest_1samp(samples.numpy()[:, 0], np.float32(0.2))
    assert ours.statistic == pytest.approx(theirs.statistic**2) and ours.p_value == pytest.approx(theirs.pvalue)


def test_the_statistic_is_that_of_the_definition(generator):
    samples, mean = correlated(generator, 40), torch.ones(COORDINATES, dtype=torch.float64)
    off = (samples.mean(0) - mean).numpy()
    expected = 40 * off @ np.linalg.solve(np.cov(samples.numpy().T), off)
    result = hotelling(samples, mean)
    assert result.statistic == pytest.approx(expected, rel=1e-9)
    freedom = 40 - COORDINATES
    assert result.p_value == pytest.approx(stats.f.sf(expected * freedom / (39 * COORDINATES), COORDINATES, freedom))


def test_the_statistic_does_not_depend_on_the_coordinates_chosen(generator):
    samples, mean = correlated(generator, 40), torch.ones(COORDINATES, dtype=torch.float64)
    change = torch.randn(COORDINATES, COORDINATES, generator=generator, dtype=torch.float64)
    assert hotelling(samples @ change, mean @ change).statistic == pytest.approx(hotelling(samples, mean).statistic)


@pytest.mark.parametrize("coordinate", range(COORDINATES))
def test_a_mean_off_by_one_standard_deviation_in_one_coordinate_is_found(coordinate, generator):
    samples = torch.randn(100, COORDINATES, generator=generator, dtype=torch.float64)
    off = torch.zeros(COORDINATES)
    off[coordinate] = 1.0
    assert hotelling(samples, off).p_value < 1e-8


def test_a_shift_hidden_by_correlation_is_found(generator):
    """Small in every coordinate, large across the narrow direction."""
    common = torch.randn(100, 1, generator=generator, dtype=torch.float64)
    samples = common + 0.01 * torch.randn(100, 2, generator=generator, dtype=torch.float64)
    assert hotelling(samples, torch.tensor([0.02, -0.02])).p_value < 1e-8


def test_two_shifted_samples_are_told_apart(generator):
    first, second = correlated(generator, 100), correlated(generator, 100, 2.0)
    assert hotelling_two_sample(first, second + second.std(0)).p_value < 1e-8


@pytest.mark.parametrize("size", [100, 400])
def test_the_larger_sample_narrows_only_its_own_part(size, generator):
    """One coordinate: T^2 is Welch's t squared."""
    small, large = (torch.randn(n // 2, 1, generator=generator, dtype=torch.float64) for n in (50, size))
    first, second = torch.cat([small, -small]) + 0.2, 3 * torch.cat([large, -large])
    welch = stats.ttest_ind(first.numpy()[:, 0], second.numpy()[:, 0], equal_var=False)
    assert hotelling_two_sample(first, second).statistic == pytest.approx(welch.statistic**2)


def test_two_samples_may_change_places(generator):
    first, second = correlated(generator, 50), correlated(generator, 80, 2.0)
    there, back = hotelling_two_sample(first, second), hotelling_two_sample(second, first)
    assert there.p_value == pytest.approx(back.p_value)


def degenerate(generator: torch.Generator) -> Tensor:
    """Three coordinates: one that varies, one that is constant, and one that repeats the first."""
    varying = torch.randn(100, generator=generator, dtype=torch.float64)
    return torch.stack([varying, torch.full_like(varying, 7.0), 2 * varying], 1)


def test_directions_without_variance_do_not_enter(generator):
    samples = degenerate(generator)
    alone = hotelling(samples[:, :1], torch.zeros(1))
    together = hotelling(samples, torch.tensor([0.0, 7.0, 0.0]))
    assert together.statistic == pytest.approx(alone.statistic) and together.p_value == pytest.approx(alone.p_value)


@pytest.mark.parametrize("mean", [[0.0, 7.001, 0.0], [0.0, 7.0, 0.001]], ids=["constant", "repeated"])
def test_directions_without_variance_must_agree(mean, generator):
    assert hotelling(degenerate(generator), torch.tensor(mean)) == (math.inf, 0.0)


def test_constants_that_agree_pass(generator):
    assert hotelling(torch.full((20, 3), 0.1), torch.full((3,), 0.1)) == (0.0, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_that_are_not_finite_never_pass(value, generator):
    samples, others = correlated(generator, 40), correlated(generator, 40)
    samples[3, 2] = value
    assert hotelling(samples, torch.zeros(COORDINATES)) == (math.inf, 0.0)
    assert hotelling_two_sample(others, samples) == (math.inf, 0.0)


@pytest.mark.parametrize("size", [1, COORDINATES])
def test_as_many_coordinates_as_samples_are_refused(size, generator):
    samples = correlated(generator, size)
    with pytest.raises(ValueError, match=f"needs more samples than coordinates, got {size} of {COORDINATES}"):
        hotelling(samples, torch.zeros(COORDINATES))
    with pytest.raises(ValueError, match="needs more samples than coordinates"):
        hotelling_two_sample(correlated(generator, 40), samples)
