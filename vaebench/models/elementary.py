"""Elementary functions for code that is compiled, where torch's own are slow or cannot be vmapped."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_TRACED = ContextVar("traced", default=False)
TERMS = 7  # of the logarithm's series: the next one is 9e-9 of its sum at most
TANH = (-1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925)  # of x^3, x^5, ...
NEAR = 0.4  # up to where the next term is below 6e-8 of the sum


def compiling() -> bool:
    """Whether this code is traced in order to be compiled, by torch.compile or by `vaebench.training.compilation`.

    Returns:
        Whether it is.
    """
    return torch.compiler.is_compiling() or _TRACED.get()


@contextmanager
def traced() -> Iterator[None]:
    """Code that runs within is `compiling`."""
    token = _TRACED.set(True)
    try:
        yield
    finally:
        _TRACED.reset(token)


def log1p(u: Tensor) -> Tensor:
    """log(1 + u) for u in [-1/2, 1], to rounding, near zero too.

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


def tanh(x: Tensor) -> Tensor:
    """tanh x to rounding, in a third of the time that inductor's kernels take on a CPU.

    From e^{-2|x|}, or near zero, where that cancels, by its power series.

    Args:
        x: float32, any shape.

    Returns:
        Same shape and dtype.
    """
    size, square = x.abs(), x * x
    decay = (-2 * size).exp()
    series = torch.full_like(x, TANH[-1])
    for coefficient in TANH[-2::-1]:
        series = series * square + coefficient
    return torch.where(size > NEAR, torch.copysign((1 - decay) / (1 + decay), x), x + x * square * series)


def sigmoid(negative: Tensor, decay: Tensor) -> Tensor:
    """The logistic function of t from e^{-|t|}, which nothing overflows.

    Args:
        negative: whether t < 0.
        decay: e^{-|t|}, same shape.

    Returns:
        Same shape and dtype as `decay`.
    """
    return torch.where(negative, decay, 1.0) / (1 + decay)


def expanded(x: Tensor, value: Tensor, slope: Tensor, bend: Tensor) -> Tensor:
    """A function at x by its value and first two derivatives there.

    torch.compile cannot vmap a `torch.autograd.Function`; this is vmapped, and differentiated twice, like any sum.

    Args:
        x: finite, any shape.
        value: of the function at x.
        slope: of the function at x.
        bend: second derivative of the function at x.

    Returns:
        `value`, with these derivatives.
    """
    step = x - x.detach()
    return value + step * (slope + 0.5 * bend * step)
