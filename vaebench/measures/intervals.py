"""Intervals of what `vaebench.measures.probes` measures of gradients, with simulated coverages.

These stand in `tests/test_coverage.py`.
"""

import math
from collections.abc import Callable, Collection

from vaebench.measures.jackknife import jackknife, jackknife_skewness, square_over_variance, trace_variance
from vaebench.measures.moments import Moments
from vaebench.measures.probes import gradient_variance
from vaebench.support.statistics import Interval, gamma_quantile, log_interval, stretched, student_quantile

TAIL = 0.025  # on either side; on one, twice that
PRIOR = 4.0  # variances of noise alone that the assumed error of a signal weighs beside the measured one


def variance_limits(moments: Moments, names: Collection[str] | None = None) -> Interval:
    """The 95 % interval of `gradient_variance`: `log_interval` with the skewness of the jackknife's pseudo-values."""
    skewness = jackknife_skewness(moments, trace_variance, names)
    return log_interval(gradient_variance(moments, names), moments.groups - 1, skewness)


def snr_limits(moments: Moments, names: Collection[str] | None = None) -> Interval:
    """The 95 % interval of `snr`: those ratios by which the measured U / V is likely enough.

    At a squared ratio r, U / V has mean r and the variance n + k r (4 q / R + c U / V): n that of `grad_sq` over V^2
    where there is no signal, q = tr(Cov^2) / V^2, c the squared relative error of V. k, which is 1 where the signal is
    as noisy as directions of the noise are on average, is the jackknife's variance less 2 n over what the formula has
    at the measured ratio, both plus 4 n. The law is a gamma's with the third moment of a noncentral chi-square of 1 / q
    degrees of freedom, stretched by Student's t and by the skewness of the pseudo-values as far as the signal makes the
    variance.

    Of 64 normal or exponential gradients and products of normal ones it covers the truth with 0.93 to 0.98, whatever
    the signal, but with 0.99 where exponential ones have one of two errors; with 0.89 at least where the signal lies
    along a direction with an eighth of the noise. Ratios below the upper limit at U = 0 are excluded by a measured one
    that is too large alone, and with 0.05.

    Returns:
        The limits, of a positive trace variance; the lower one is 0 where the signal is not told from none, and the
        upper one is no smaller than if U were not below 0.
    """
    count, variance = moments.count, gradient_variance(moments, names)
    share = min(1.0, moments.squared_covariance(names) / variance.value**2) or 1.0
    found, alone = jackknife(moments, square_over_variance, names), 2 * share / (count * (count - 1))
    below, above = stretched(jackknife_skewness(moments, square_over_variance, names), moments.groups - 1)
    normal = student_quantile(1 - TAIL, math.inf)

    measured = max(found.value, 0.0)
    silent = 4 * share / count
    heard = silent + measured * (variance.error / variance.value) ** 2
    times = (max(found.error**2 - 2 * alone, 0.0) + PRIOR * alone) / (measured * heard + PRIOR * alone)

    def reach(ratio: float, tail: float, stretch: float, each: float) -> float:
        more = times * ratio * each
        total, part = alone + more, more / (alone + more)
        third = 8 * share**2 / count**3 + 24 * ratio * share**2 / count**2
        return math.sqrt(total) * (1 + part * (stretch / normal - 1)) * gamma_quantile(tail, third / total**1.5)

    def highest(value: float, each: float) -> float:
        end = value + math.sqrt(alone)
        while end - value + reach(end, 1 - TAIL, above, each) < 0:
            end *= 2
        return _root(lambda ratio: value - ratio - reach(ratio, 1 - TAIL, above, each), value, end)

    def missed(ratio: float) -> float:
        return found.value - ratio - reach(ratio, TAIL * (1 + (ratio < weak)), below, heard)

    weak = highest(0.0, silent)
    return Interval(math.sqrt(_root(missed, 0.0, measured)), math.sqrt(highest(measured, heard)))


def _root(falling: Callable[[float], float], start: float, end: float) -> float:
    """Where a function falls through zero between two places; the start if it is below zero there."""
    from scipy.optimize import brentq  # takes long to load

    return brentq(falling, start, end) if falling(start) > 0 > falling(end) else start  # pyright: ignore[reportReturnType] - it has no full output
