"""How coarse the numbers are that a loss computes: two ways to one gradient differ by so much."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vaebench.gradients.loss import Loss
from vaebench.support.repeatable import preserved

LEAST = 1e-9  # what rounding explains in float64
UNITS = 100  # in the last place, in float32
HALF = 4, 1e-4  # units, and what is added to them, in half precision, where a hundred were a tenth of the gradient


def explained(eps: float) -> float:
    """The difference of two gradients' means, relative to the largest gradient, that rounding explains.

    Args:
        eps: the unit in the last place of the coarsest numbers that take part.

    Returns:
        1e-9, or 100 units where that is more, or 4 units and 1e-4 where that is less than these.
    """
    return max(LEAST, min(UNITS * eps, HALF[0] * eps + HALF[1]))


class _Coarsest(TorchFunctionMode):
    """Keeps the largest unit in the last place of the floating tensors that are computed within.

    Attributes:
        eps: that unit, relative to the number.
    """

    def __init__(self, eps: float):
        super().__init__()
        self.eps = eps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.eps = max(self.eps, torch.finfo(tensor.dtype).eps)
        return found


def rounding_of(loss: Loss, x: Tensor, noise: Tensor) -> float:
    """The unit in the last place of the coarsest numbers that a loss computes, parameters among them.

    A model may compute parts of a value in another dtype than its parameters', as within `torch.autocast`.

    Returns:
        The unit, relative to a number: 2.2e-16 in float64, 1.2e-7 in float32, 0.0078 in bfloat16.
    """
    seen = _Coarsest(max(torch.finfo(p.dtype).eps for p in loss.parameters() if p.is_floating_point()))
    with preserved(loss), torch.enable_grad(), seen:
        loss(x, noise)
    return seen.eps
