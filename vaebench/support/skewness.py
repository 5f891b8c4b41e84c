"""Tests of means of skewed numbers, for which Student's law fails far in the tail, where the gates' levels are."""

import numpy as np
import torch
from torch import Tensor


def without_skewness(t: Tensor, skewness: Tensor, count: int) -> Tensor:
    """|t| of a mean of skewed numbers, such that Student's law holds for it in the tail.

    The transformation of Hall (1992), with w = t / sqrt(n): sqrt(n) ((1 + s w / 3)^3 - 1) / s + s / (6 sqrt(n)); of it
    and of |t|, the smaller. Where a mean of n numbers with skewness s lies on the side without the long tail, few large
    numbers were drawn, their standard deviation is too small and |t| too large: by Student's law, means of 128
    lognormal numbers are 170 times as often beyond the level 1e-5 as they should be, and 6 times by this.

    Args:
        t: studentised means, (...).
        skewness: of the numbers, s, (...).
        count: n.

    Returns:
        The numbers to be held against Student's t, (...), not negative.

    >>> without_skewness(torch.tensor([-3.0, 3.0]), torch.tensor([2.0, 2.0]), 100)
    tensor([2.4067, 3.0000])
    """
    root = count**0.5
    safe = torch.where(skewness.abs() < 1e-6, 1e-6, skewness)
    turned = root * ((1 + safe * t / (3 * root)) ** 3 - 1) / safe + safe / (6 * root)
    return torch.minimum(t.abs(), turned.abs())


def reach(critical: float, skewness: float, count: int) -> float:
    """How large |t| must be for `without_skewness` to exceed a number on either side.

    Args:
        critical: the number.
        skewness: of the numbers whose mean it is.
        count: of them.

    Returns:
        The larger of the two limits.

    >>> round(reach(2.406667, 2.0, 100), 4), round(reach(2.0, 0.0, 100), 4)
    (3.0, 2.0)
    """
    root, skewed = count**0.5, max(abs(skewness), 1e-6)
    left = 1 - skewed * (critical + skewed / (6 * root)) / root
    return max(critical, 3 * root * (1 - float(np.cbrt(left))) / skewed)


def skewness_of(values: Tensor) -> Tensor:
    """The skewness of each column of (n, ...), with divisor n; 0 of a column without variance."""
    off = values - values.mean(0)
    return skewness_from(off.square().mean(0), off.pow(3).mean(0))


def skewness_from(variance: Tensor, third: Tensor) -> Tensor:
    """The skewness by the second and third central moments; 0 where there is no variance."""
    return torch.where(variance > 0, third / variance.clamp(min=1e-300) ** 1.5, 0.0).nan_to_num()
