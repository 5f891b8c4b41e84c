"""The one way to take a step: gradients of a fleet, recorded with their values and squared norms, and an optimizer.

    found, (losses, squares) = step(parameters, x, noise)

Parameters are stacked, (S, *shape), x is (S, B, *event) and noise (S, K, B, D); losses and squares are (S,). The loss
is that of one member; the compiler is given the gradient of one micro-batch, of `size` examples if that is set, else of
as many as `vaebench.gradients.memory.examples_at_once` says.
"""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.optim import Optimizer

from vaebench.gradients.loss import Loss, Parameters, loss_function
from vaebench.gradients.memory import Differentiator, examples_at_once, gradient_and_value, sum_of_parts

Compile = Callable[[Differentiator], Differentiator]
StepTaker = Callable[[Parameters, Tensor, Tensor], tuple[Parameters, Tensor]]


def eager(differentiate: Differentiator) -> Differentiator:
    """The gradient as it is, where `vaebench.training.compilation.Compiler` compiles it."""
    return differentiate


def step_taker(loss: Loss, optimizer: Optimizer, compiler: Compile = eager, size: int | None = None) -> StepTaker:
    """Steps of a fleet: the gradient, by micro-batches where the batch is large, is handed to the optimizer.

    Returns:
        (parameters, x, noise) -> gradients by name, and losses and squared norms of the gradients, (2, S), all as
        they were before the parameters were updated. Step sizes of the optimizer are read at every step.
    """
    gradient = recorded_gradient(loss, compiler, size)

    def step(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        found, recorded = gradient({name: p.detach() for name, p in parameters.items()}, x, noise)
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        optimizer.step()
        for parameter in parameters.values():
            parameter.grad = None  # its memory is free for the next gradient once the caller lets go of it
        return found, recorded

    return step


def recorded_gradient(loss: Loss, compiler: Compile = eager, size: int | None = None) -> Differentiator:
    """The function from (parameters, x, noise) to gradients by name, and losses and squared norms, (2, S)."""
    one = compiler(_recorded(fleet_gradient(loss)))

    def run(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        at_once = examples_at_once(x, noise, size)
        if at_once >= x.shape[1]:
            return one(parameters, x, noise)
        found, parts = sum_of_parts(one, parameters, x, noise, at_once)
        return found, torch.stack([parts[0], squared_norms(found)])

    return run


def fleet_gradient(loss: Loss) -> Differentiator:
    """Each member's own gradient and loss (S,): `vmap` of one member's, in which no hook of an estimator is lost."""
    function = loss_function(loss)
    alone, together = gradient_and_value(function), vmap(grad_and_value(function))

    def run(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        if len(x) > 1:
            return cast(tuple[Parameters, Tensor], together(dict(parameters), x, noise))
        found, value = alone({name: p.squeeze(0) for name, p in parameters.items()}, x.squeeze(0), noise.squeeze(0))
        return {name: g.unsqueeze(0) for name, g in found.items()}, value.unsqueeze(0)

    return run


def squared_norms(gradients: Mapping[str, Tensor]) -> Tensor:
    """|g|^2 of each member, (S,), over all parameters, of gradients (S, *shape)."""
    norms = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients.values()]
    return torch.stack(norms).square().sum(0)


def _recorded(differentiate: Differentiator) -> Differentiator:
    def run(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        found, losses = differentiate(parameters, x, noise)
        return found, torch.stack([losses, squared_norms(found)])

    return run
