"""Statistics of gradient moments with their jackknife standard errors, one group of replicates left out at a time."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.measures.moments import Moments
from vaebench.support.statistics import Estimate


class Sums(NamedTuple):
    """|sum g|^2, sum |g|^2 and the sum of squared group sums, over `number` replicates; leading axes broadcast."""

    total: Tensor
    squares: Tensor
    groups: Tensor
    number: int


Statistic = Callable[[Sums], Tensor]


def unbiased_square(sums: Sums) -> Tensor:
    """U = (|sum g|^2 - sum |g|^2) / (R (R - 1)), of which the mean is |E g|^2."""
    return (sums.total - sums.squares) / (sums.number * (sums.number - 1))


def trace_variance(sums: Sums) -> Tensor:
    """V, the trace of the sample covariance."""
    return (sums.squares - sums.total / sums.number) / (sums.number - 1)


def square_over_variance(sums: Sums) -> Tensor:
    """U / V, the square of the signal-to-noise ratio."""
    return unbiased_square(sums) / trace_variance(sums)


def jackknife(moments: Moments, statistic: Statistic, names: Collection[str] | None = None) -> Estimate:
    """A statistic of the moments of named parameters, with its jackknife standard error over the groups; 0 of none."""
    names = tuple(moments.own if names is None else names)
    if not names:
        return Estimate(0.0, 0.0)
    value, spread = _leaving_one_out(moments, statistic, names)
    return Estimate(float(value), float(((len(spread) - 1) * spread.var(correction=0)).sqrt()))


def jackknife_skewness(moments: Moments, statistic: Statistic, names: Collection[str] | None = None) -> float:
    """The skewness of the jackknife's pseudo-values, of whose mean a statistic has the distribution.

    Returns:
        The third standardised moment, corrected for its bias in normal samples; 0 of no parameters or no spread.
    """
    names = tuple(moments.own if names is None else names)
    if not names:
        return 0.0
    _, spread = _leaving_one_out(moments, statistic, names)
    groups, off = len(spread), spread.mean() - spread  # a group that is left out pulls the other way
    scale = float(off.square().mean()) ** 1.5
    return float(off.pow(3).mean()) / scale * (groups * (groups - 1)) ** 0.5 / (groups - 2) if scale > 0 else 0.0


def _leaving_one_out(moments: Moments, statistic: Statistic, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The statistic, and (J,) what it is without each of the groups."""
    parts = (moments.along, moments.own, moments.squares)
    along, own, squares = (torch.stack([part[name] for name in names]).sum(0) for part in parts)
    groups, total = len(own), along.sum()
    value = statistic(Sums(total, squares.sum(), own.sum(), groups * moments.group_size))
    rest = (groups - 1) * moments.group_size
    return value, statistic(Sums(total - 2 * along + own, squares.sum() - squares, own.sum() - own, rest))
