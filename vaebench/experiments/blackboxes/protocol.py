"""What a black box is: parameters, and a loss with its gradient, in NumPy. Any library can be one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.gradients import Loss, Objective, draw_noise, pathwise
from vaebench.support.repeatable import torch_seeded

Arrays = Mapping[str, np.ndarray]
STEP = 0.05  # in the weight of the Kullback-Leibler term, for the derivative of a gradient


@runtime_checkable
class BlackBox(Protocol):
    """A loss that some other code computes.

    Attributes:
        parameters: where it starts, by name.
    """

    @property
    def parameters(self) -> Arrays:
        """By name; an attribute will do."""
        ...

    def value_and_gradient(self, parameters: Arrays, x: np.ndarray, seed: int) -> tuple[float, Arrays]:
        """The loss in nats, averaged over the rows of x (B, *event), and its gradient by the parameters' names.

        All randomness comes from the seed, and nothing that is given is changed.
        """
        ...


class Claim(NamedTuple):
    """A black box and what it is held against.

    Attributes:
        box: under test.
        trusted: an unbiased gradient of the bound that is claimed, of the same parameters.
        objective: that bound, or the one that it is made of.
        promise: the bound in words, where it is not the objective's own; "" where it is.
        heavier: the trusted one with a weight of the Kullback-Leibler term that is `STEP` more, if that can be had.
        beside: name of the trusted one.
        whole: whether the box takes all rows of x, so that its variance falls as 1/B, and not a sample of its own.
    """

    box: BlackBox
    trusted: BlackBox
    objective: Objective
    promise: str = ""
    heavier: BlackBox | None = None
    beside: str = "vaebench's pathwise"
    whole: bool = True


@dataclass(frozen=True)
class TorchBox:
    """A black box of a function in torch.

    Attributes:
        parameters: by name.
        loss: (parameters, x) -> scalar; draws from torch's own generator, which is seeded for it and put back.
        dtype: in which it computes.
    """

    parameters: Arrays
    loss: Callable[[dict[str, Tensor], Tensor], Tensor]
    dtype: torch.dtype = torch.float64

    def value_and_gradient(self, parameters: Arrays, x: np.ndarray, seed: int) -> tuple[float, Arrays]:
        """The loss and its gradient; zeros for a parameter that does not enter."""
        leaves = {name: torch.tensor(value, dtype=self.dtype, requires_grad=True) for name, value in parameters.items()}
        with torch_seeded(seed):
            loss = self.loss(leaves, torch.tensor(x, dtype=self.dtype))
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return float(loss.detach()), {name: g.numpy() for name, g in zip(leaves, found, strict=True)}


class BackwardBox:
    """Training code in torch as a black box: a function that leaves gradients in a module's parameters.

    Attributes:
        parameters: of the module, by name.
    """

    parameters: Arrays

    def __init__(self, module: nn.Module, backward: Callable[[Tensor], float]):
        """Join a module and x -> loss, which draws from torch's own generator and calls `.backward()`."""
        self.leaves, self.backward = dict(module.named_parameters()), backward
        self.parameters = {name: p.detach().numpy().copy() for name, p in self.leaves.items()}

    def value_and_gradient(self, parameters: Arrays, x: np.ndarray, seed: int) -> tuple[float, Arrays]:
        """The loss and its gradient; the module's parameters are set, and left so, torch's generator is put back."""
        like = next(iter(self.leaves.values()))
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(torch.tensor(parameters[name], dtype=leaf.dtype))
                leaf.grad = None
        with torch_seeded(seed):
            value = float(self.backward(torch.tensor(x, dtype=like.dtype)))
        found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.leaves.items()}
        for leaf in self.leaves.values():
            leaf.grad = None
        return value, {name: g.detach().numpy() for name, g in found.items()}


def against_model(box: BlackBox, model: nn.Module, objective: Objective) -> Claim:
    """A black box beside our own `pathwise` of a model.

    Args:
        box: under test.
        model: a `LatentModel`, whose parameters have the names and shapes of the box's.
        objective: the bound that is claimed.

    Returns:
        Both.

    Raises:
        ValueError: if names or shapes differ.
    """
    trusted = of_model(model, objective)
    shapes = [{key: tuple(value.shape) for key, value in one.parameters.items()} for one in (box, trusted)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"The box has parameters {shapes[0]}, the model {shapes[1]}; names and shapes must agree.")
    return Claim(box, trusted, objective, heavier=of_model(model, replace(objective, beta=objective.beta + STEP)))


def of_model(model: nn.Module, objective: Objective) -> TorchBox:
    """Our own `pathwise` of a model as a black box: what others' are held against.

    Args:
        model: a `LatentModel`; its parameters' names are those of the box.
        objective: the bound.

    Returns:
        The box, in the model's dtype.
    """
    loss = Loss(model, pathwise, objective)  # pyright: ignore[reportArgumentType]

    def of(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        noise = draw_noise(model, x, objective)  # pyright: ignore[reportArgumentType]
        named = {f"model.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(loss, named, (x, noise))

    own = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    return TorchBox(own, of, next(model.parameters()).dtype)
