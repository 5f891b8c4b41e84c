"""Sums of martingale differences: how far one is from zero, and how far one would have to be to be seen.

Z = sum / sqrt(sum of squares) is about standard normal (martingale central limit theorem), but far in the tail only if
the terms are not skewed: of 1,920 skewed as exponential numbers are, Z is 30 times as often beyond the level 1e-7 as it
should be. `vaebench.support.skewness.without_skewness` mends that; the skewness of the sum is taken from its terms.
"""

import math

import torch
from torch import Tensor

from vaebench.gates.verdict import detectable
from vaebench.support.skewness import reach, skewness_from, without_skewness


def z_scores(terms: Tensor, slack: Tensor | float = 0.0) -> Tensor:
    """|sum| / sqrt(sum of squares) over the first axis, less what rounding (slack) and skewness explain."""
    return scores_from(terms.sum(0), terms.square().sum(0), terms.pow(3).sum(0), len(terms), slack)


def scores_from(
    total: Tensor, squares: Tensor, cubes: Tensor, count: Tensor | int, slack: Tensor | float = 0.0
) -> Tensor:
    """The same from the sums of so many terms, of their squares and of their cubes."""
    beyond = total.sign() * (total.abs() - slack).clamp(min=0)
    scores = beyond / squares.sqrt().clamp(min=1e-300)
    scores = without_skewness(scores, _skewness(total, squares, cubes, count), 1)
    return torch.where(scores.isnan(), math.inf, scores)


def errors_found(threshold: float, terms: Tensor) -> Tensor:
    """How many roots of the sum of squares a sum must measure for its score to exceed a threshold.

    Args:
        threshold: of |Z|.
        terms: of the sums, (n, ...).

    Returns:
        By column, for an effect of either sign, with probability 0.9.
    """
    skewness = _skewness(terms.sum(0), terms.square().sum(0), terms.pow(3).sum(0), len(terms))
    found = [detectable(reach(threshold, float(one), 1)) for one in skewness.flatten()]
    return terms.new_tensor(found).view(skewness.shape)


def _skewness(total: Tensor, squares: Tensor, cubes: Tensor, count: Tensor | int) -> Tensor:
    """Of a sum: the third central moment of its terms over their variance to the power 3/2, both summed."""
    mean = total / count
    variance, third = squares - total * mean, cubes - 3 * mean * squares + 2 * total * mean.square()
    equal = variance <= (16 * torch.finfo(squares.dtype).eps) ** (2 / 3) * squares  # the third moment is rounding
    return torch.where(~equal, skewness_from(variance, third), 0.0)
