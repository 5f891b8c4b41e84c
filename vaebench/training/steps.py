"""A step of training: a gradient, and what an optimizer makes of it."""

from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer

from vaebench.gradients.loss import Parameters
from vaebench.gradients.memory import Differentiator

Stepper = Callable[[Differentiator, Optimizer], Differentiator]


def eager_step(differentiate: Differentiator, optimizer: Optimizer) -> Differentiator:
    """The gradient is handed to the optimizer.

    Args:
        differentiate: (parameters, x, noise) -> gradients by name and values.
        optimizer: of the same parameters; its step sizes are read at every step.

    Returns:
        (parameters, x, noise) -> gradients by name and values, as they were before the parameters were updated.
    """

    def step(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        gradients, values = differentiate(parameters, x, noise)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        optimizer.step()
        for parameter in parameters.values():
            parameter.grad = None  # its memory is free for the next gradient once the caller lets go of it
        return gradients, values

    return step
