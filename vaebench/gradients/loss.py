"""The loss of training, as a module and as a function of its parameters."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.func import functional_call

from vaebench.gradients.estimators import Estimator
from vaebench.gradients.objectives import Objective
from vaebench.models.protocol import LatentModel

Parameters = Mapping[str, Tensor]


class Loss(nn.Module):
    """What training minimises: minus the batch mean of an estimator's surrogate.

    A module, so that `torch.func.functional_call` reaches the model's parameters, under the names
    "model.<name>".
    """

    def __init__(self, model: LatentModel, estimator: Estimator, objective: Objective):
        """Join a model (a module), an estimator and an objective."""
        super().__init__()
        self.model, self.estimator, self.objective = model, estimator, objective

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Scalar loss from x (B, *event) and noise (K, B, D); its gradient estimates that of minus the bound."""
        return -self.estimator(self.model, x, noise, self.objective).mean()


def loss_function(loss: Loss) -> Callable[[Parameters, Tensor, Tensor], Tensor]:
    """The loss as a function of parameters, x (B, *event) and noise (K, B, D); scalar. Buffers are the module's."""
    buffers = dict(loss.named_buffers())
    return lambda parameters, x, noise: functional_call(loss, (dict(parameters), buffers), (x, noise))


def own_parameters(loss: Loss) -> dict[str, Tensor]:
    """The module's parameters by name, detached."""
    return {name: parameter.detach() for name, parameter in loss.named_parameters()}
