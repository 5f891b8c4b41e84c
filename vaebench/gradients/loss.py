"""The loss of training, as a module and as a function of its parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vaebench.gradients.estimators import Estimator
from vaebench.gradients.noise import declared_noise
from vaebench.gradients.objectives import Objective
from vaebench.models import LatentModel
from vaebench.support.attributes import Attributes, assigned_by

Parameters = Mapping[str, Tensor]


class Loss(nn.Module):
    """What training minimises: minus the batch mean of an estimator's surrogate.

    A module, so that `function_of_parameters` reaches the model's parameters, under the names "model.<name>".
    """

    def __init__(self, model: LatentModel, estimator: Estimator, objective: Objective):
        """Join a model (a module), an estimator and an objective."""
        super().__init__()
        self.model, self.estimator, self.objective = model, estimator, objective

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Scalar loss from x (B, *event) and noise (K, B, D); its gradient estimates that of minus the bound."""
        return -self.estimator(self.model, x, noise, self.objective).mean()

    def noise_shape(self, rows: int) -> tuple[int, int, int]:
        """Shape of the noise of so many rows: (K, B, D), unless the estimator declares more."""
        draws, numbers = declared_noise(self.estimator, self.objective.samples, self.model.latents)
        return draws, rows, numbers

    def own_part(self, noise: Tensor) -> Tensor:
        """What this estimator takes of noise (..., M, B, E) of one that declares at least as much."""
        draws, _, numbers = self.noise_shape(noise.shape[-2])
        return noise[..., :draws, :, :numbers]


class Tried(NamedTuple):
    """Data that `trial.tried` has taken for a loss: what is measured of it at many checkpoints is not tried each time.

    Attributes:
        loss: whose trial it was.
        data: (N, *event), as `check_input` returns them.
    """

    loss: Loss
    data: Tensor

    def of(self, loss: Loss) -> bool:
        """Whether the trial was that of this loss: of the same model, estimator and bound."""
        mine = self.loss
        same = mine.model is loss.model and mine.estimator is loss.estimator
        return same and mine.objective == loss.objective

    def rows(self, chosen: Tensor | slice) -> "Tried":
        """The same of some rows."""
        return Tried(self.loss, self.data[chosen])


def function_of_parameters(module: nn.Module) -> Callable[..., Any]:
    """A module as a function of its parameters, which leaves it as it was, whatever its graph.

    `torch.func.functional_call` puts the given tensors into the module and takes them out again; where one module sits
    on two paths it would do so twice, and leave the given ones behind (pytorch issue 164759). Here every place is
    filled once. What the call assigns to attributes of the module is undone; buffers are copies.

    Returns:
        (parameters by name, *arguments) -> what the module returns. A parameter that is not given is the module's own.
        It raises ValueError if a name is not one of `module.named_parameters()`.
    """
    places: dict[str, list[str]] = {}
    first: dict[int, str] = {}
    assigning = assigned_by(module)
    copies: dict[int, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    for path, owner in module.named_modules():
        for name, tensor in owner.named_parameters(path, recurse=False, remove_duplicate=False):
            places.setdefault(first.setdefault(id(tensor), name), []).append(name)
        for name, tensor in owner.named_buffers(path, recurse=False, remove_duplicate=False):
            buffers[name] = copies.setdefault(id(tensor), tensor.clone())

    def call(parameters: Parameters, *arguments: Any) -> Any:
        if not torch.compiler.is_compiling() and not parameters.keys() <= places.keys():
            unknown = min(parameters.keys() - places.keys())
            raise ValueError(f"There is no parameter {unknown!r}; the names are those of named_parameters().")
        filled = {**buffers, **{place: tensor for name, tensor in parameters.items() for place in places[name]}}
        if torch.compiler.is_compiling():
            return functional_call(module, filled, arguments, tie_weights=False)
        before = [Attributes.of(one) for one in assigning]
        try:
            return functional_call(module, filled, arguments, tie_weights=False)
        finally:
            for attributes in before:
                attributes.restore()

    return call


def loss_function(loss: Loss) -> Callable[[Parameters, Tensor, Tensor], Tensor]:
    """The loss as a function of parameters, x (B, *event) and noise (K, B, D); scalar. Buffers are the module's."""
    return function_of_parameters(loss)


def own_parameters(loss: nn.Module) -> dict[str, Tensor]:
    """The parameters that are trained, by name, detached: frozen ones and ones without elements are left out."""
    return {n: p.detach() for n, p in loss.named_parameters() if p.requires_grad and p.numel()}
