"""A logarithm that torch.compile makes fast."""

import torch
from torch import Tensor

TERMS = 7  # of the series: the next one is 9e-9 of its sum at most


def log1p(u: Tensor) -> Tensor:
    """log(1 + u) for u in [-1/2, 1], to rounding, near zero too, for code that is compiled.

    Compiled on a CPU in float32, `torch.log1p` takes three times as long as in a kernel of its own. There it is
    2 artanh(t), t = u / (2 + u) in [-1/3, 1/3], by its power series.

    Args:
        u: any shape.

    Returns:
        Same shape and dtype.
    """
    if u.dtype != torch.float32 or u.device.type != "cpu":
        return u.log1p()
    t = u / (2 + u)
    square = t * t
    series = torch.full_like(t, 1 / (2 * TERMS - 1))
    for term in range(TERMS - 2, -1, -1):
        series = series * square + 1 / (2 * term + 1)
    return 2 * t * series
