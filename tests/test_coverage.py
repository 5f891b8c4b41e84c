"""Intervals and bands that pages show cover the truth as often as they say, by simulation.

A coverage of 0.95 is met within 0.03; where it is counted in 600 sets, whose error is 0.009, within 0.04. Counts of
16,000 sets by the same formulas gave 0.931 to 0.971 for variances of 32 to 256 gradients.
"""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from vaebench.experiments.certifying.noise import ratio_of, snr_interval, variance_interval
from vaebench.measures.intervals import snr_limits
from vaebench.measures.jackknife import jackknife, jackknife_skewness, square_over_variance
from vaebench.measures.moments import gather
from vaebench.measures.probes import grad_sq, gradient_variance
from vaebench.report.bands import band_of, on_log_axis
from vaebench.support.statistics import log_interval, stretched

SETS, LIMITS = 600, (0.91, 0.99)


def normal(generator, sets, count, scales=(1.0,)):
    shape = sets, count, len(scales)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * torch.tensor(scales, dtype=torch.float64)


LAWS = {
    "normal": (normal, 1.0),
    "three directions": (lambda *size: normal(*size, (1.0, 0.7, 0.45)), 1.6925),
    "twenty directions": (lambda *size: normal(*size, (1.0,) * 20), 20.0),
    "exponential": (lambda *size: -torch.special.log_ndtr(normal(*size)), 1.0),
    "square of a normal": (lambda *size: normal(*size).square(), 2.0),
    "product of normals": (lambda *size: normal(*size) * normal(*size), 1.0),
}


def sets_of(law, count, seed=0, sets=SETS):
    """Moments of so many sets of R gradients."""
    drawn = LAWS[law][0](torch.Generator().manual_seed(seed), sets, count)
    return [gather([{"p": one}], count) for one in drawn]


@pytest.mark.parametrize("count", [32, 256])
@pytest.mark.parametrize("law", LAWS)
def test_the_interval_of_a_variance(law, count):
    """95 % is what certificates say, of 32 to 1,024 gradients; Student's alone has 0.80 of squares of normal ones."""
    found = [variance_interval(one, ["p"])[0] for one in sets_of(law, count)]
    inside = sum(one.low <= LAWS[law][1] <= one.high for one in found) / SETS
    assert LIMITS[0] <= inside <= LIMITS[1]


def test_students_interval_alone_is_too_short_for_skewed_gradients():
    """The control: without the skewness, 0.80 of 32 squares of normal gradients."""
    found = [log_interval(gradient_variance(one), 31) for one in sets_of("square of a normal", 32)]
    assert sum(low <= 2 <= high for low, high in found) / SETS < 0.85


@pytest.mark.parametrize("law", ["three directions", "square of a normal"])
def test_the_interval_of_a_ratio_of_variances(law):
    both = (sets_of(law, 64), sets_of("three directions", 64, seed=1))
    pairs = [[variance_interval(one, ["p"])[0] for one in sets] for sets in both]
    truth = LAWS[law][1] / LAWS["three directions"][1]
    found = [ratio_of(own, base) for own, base in zip(*pairs, strict=True)]
    assert LIMITS[0] <= sum(one.low <= truth <= one.high for one in found) / SETS <= LIMITS[1]


@pytest.mark.parametrize("signal", [0, 1, 2, 8])
@pytest.mark.parametrize(
    "law", ["normal", "three directions", "twenty directions", "exponential", "product of normals"]
)
def test_the_interval_of_a_signal_to_noise_ratio(law, signal):
    """Means of so many errors of the mean: within 0.04 of 0.95, but 0.99 of exponential ones of two errors.

    Student's alone has 0.77 to 0.95 at two errors of the mean, and an interval that allows for the largest error that a
    weak signal may have covers every time. Of 1,500 sets 0.930 to 0.980 of the other cells cover.
    """
    draw, variance = LAWS[law]
    drawn, truth = draw(torch.Generator().manual_seed(2), SETS, 64) - float(law == "exponential"), signal / 8
    drawn[..., 0] += truth * math.sqrt(variance)
    found = [snr_interval(gather([{"p": one}], 64), ["p"]) for one in drawn]
    inside = sum(one.low <= truth <= one.high for one in found) / SETS
    assert LIMITS[0] <= inside <= (0.995 if (law, signal) == ("exponential", 2) else LIMITS[1])


def test_the_interval_of_a_signal_where_the_noise_is_least():
    """Noise of 1, 0.7 and 0.45, and a mean of four errors along the last: it is sharper than the prior knows."""
    drawn = LAWS["three directions"][0](torch.Generator().manual_seed(2), SETS, 64)
    drawn[..., 2] += 0.5 * math.sqrt(1.6925)
    found = [snr_interval(gather([{"p": one}], 64), ["p"]) for one in drawn]
    assert 0.89 <= sum(one.low <= 0.5 <= one.high for one in found) / SETS <= 0.995


@pytest.mark.parametrize(("t", "below"), [(3.0, 0.05), (6.0, 0.025), (20.0, 0.025)])
def test_along_one_direction_the_interval_is_about_that_of_the_noncentral_f(t, below):
    """64 normal gradients whose mean is t errors: t^2 is F(1, 63), whose noncentrality is 64 times the squared ratio.

    The exact limits are those at which t^2 is its 0.975 and 0.025 quantile. Where t^2 = 1, so that U = 0, the upper one
    is (1 + 1.96)^2 / 64 = 0.137: no upper limit excludes a smaller ratio, and the lower one may exclude it with 0.05.
    """
    even = torch.special.ndtri((torch.arange(64, dtype=torch.float64) + 0.5) / 64)
    even = even[torch.randperm(64, generator=torch.Generator().manual_seed(5))].unsqueeze(1)
    found = snr_interval(gather([{"p": even / even.std() + t / 8}], 64), ["p"])
    assert found.value == pytest.approx(math.sqrt((t * t - 1) / 64))
    exact = [
        optimize.brentq(lambda ratio, tail=tail: stats.ncf.sf(t * t, 1, 63, 64 * ratio) - tail, 1e-9, 20)
        for tail in (below, 0.975)
    ]
    assert (exact[0] < 0.137) == (below == 0.05)
    assert (found.low**2, found.high**2) == (pytest.approx(exact[0], rel=0.3), pytest.approx(exact[1], rel=0.3))


@pytest.mark.parametrize(("t", "below"), [(3.0, 0.05), (9.0, 0.025), (20.0, 0.025)])
def test_limits_of_a_signal_solve_the_law_that_is_stated(t, below):
    """At a limit r, U / V is the quantile of Pearson's third law with the mean, variance and third moment of r.

    Of R gradients: variance n + k r (4 q / R + c U / V), n = 2 q / (R (R - 1)); third 8 q^2 / R^3 + 24 r q^2 / R^2;
    stretched by Student's t as far as the signal makes the variance, of 64 normal quantiles, which have no skewness.
    """
    even = torch.special.ndtri((torch.arange(64, dtype=torch.float64) + 0.5) / 64).unsqueeze(1)
    moments = gather([{"p": even / even.std() + t / 8}], 64)
    variance, found = gradient_variance(moments), jackknife(moments, square_over_variance)
    q, c = moments.squared_covariance() / variance.value**2, (variance.error / variance.value) ** 2
    q = min(1.0, q)
    n, each = 2 * q / (64 * 63), 4 * q / 64 + c * found.value
    k = (found.error**2 - 2 * n + 4 * n) / (found.value * each + 4 * n)
    ends = stretched(jackknife_skewness(moments, square_over_variance), 63)
    for limit, tail, end in zip(snr_limits(moments), (1 - below, 0.025), ends, strict=True):
        r = limit**2
        total, third = n + k * r * each, 8 * q**2 / 64**3 + 24 * r * q**2 / 64**2
        stretch = 1 + (1 - n / total) * (end / stats.norm.isf(0.025) - 1)
        quantile = stats.pearson3.ppf(tail, third / total**1.5)
        assert found.value - r == pytest.approx(math.sqrt(total) * stretch * quantile, rel=1e-4)


def test_a_signal_that_is_not_found_has_an_upper_limit():
    """Gradients 1, -1, 1, .. have U < 0: 0 is inside, and so is 0.25, two errors of the mean."""
    signs = torch.tensor([1.0, -1.0]).double().repeat(32).unsqueeze(1)
    found = snr_interval(gather([{"p": signs}], 64), ["p"])
    assert (found.value, found.low) == (0.0, 0.0) and 0.25 < found.high < 0.45


def test_a_clear_signal_has_an_interval_of_its_ratio():
    """A mean of three standard deviations: the variance's error counts, and coverage is as stated from both sides."""
    drawn = 3 + normal(torch.Generator().manual_seed(3), SETS, 64)
    found = [snr_interval(gather([{"p": one}], 64), ["p"]) for one in drawn]
    assert LIMITS[0] <= sum(one.low <= 3 <= one.high for one in found) / SETS <= LIMITS[1]


@pytest.mark.parametrize("law", ["three directions", "twenty directions"])
def test_the_errors_of_the_page_on_accuracy(law):
    """Its ± is one standard error of 256 gradients: 1.96 of them are a 95 % interval."""
    found = [gradient_variance(one) for one in sets_of(law, 256)]
    inside = sum(abs(one.value - LAWS[law][1]) <= 1.96 * one.error for one in found) / SETS
    assert LIMITS[0] <= inside <= LIMITS[1]


def test_the_error_of_a_squared_gradient():
    """±1.96 standard errors of 32 gradients with a clear mean, as on the page on accuracy."""
    found = [
        grad_sq(gather([{"p": one + 1}], 32))
        for one in LAWS["twenty directions"][0](torch.Generator().manual_seed(3), SETS, 32)
    ]
    inside = sum(abs(one.value - 20) <= 2.04 * one.error for one in found) / SETS
    assert LIMITS[0] <= inside <= LIMITS[1]


def over_seeds(law, seeds, spread, sets=20_000):
    """So many sets (S, sets) of positive numbers with mean 1 and this standard deviation."""
    draw = np.random.default_rng(4)
    if law == "gamma":
        return draw.gamma(1 / spread**2, spread**2, (seeds, sets))
    wide = math.sqrt(math.log1p(spread**2))
    return np.exp(wide * draw.standard_normal((seeds, sets)) - wide**2 / 2)


def covered(band):
    return float(((band.low <= 1) & (band.high >= 1)).mean())


@pytest.mark.parametrize("law", ["gamma", "lognormal"])
@pytest.mark.parametrize("seeds", [3, 5, 16])
def test_bands_over_seeds(law, seeds):
    """What `vaebench.report.panels.BAND` says of 3 to 16 seeds that vary by 0.2, 0.5 and 1.2 of their mean."""
    mild, usual, wild = (band_of(np.arange(20_000), over_seeds(law, seeds, spread)) for spread in (0.2, 0.5, 1.2))
    for band in (mild, on_log_axis(mild), on_log_axis(usual)):
        assert 0.93 <= covered(band) <= 0.96
    assert 0.91 <= covered(usual) <= 0.95
    assert 0.88 <= covered(on_log_axis(wild)) <= 0.95 and 0.83 <= covered(wild) <= 0.91
