"""What estimators ask of a model."""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vaebench.models.distributions import HALF_LOG_TWO_PI, Gaussian, Likelihood
from vaebench.support.checks import within
from vaebench.support.registry import Registry

MODELS: Registry[Callable[..., "LatentModel"]] = Registry("model", "vaebench.models")


@runtime_checkable
class LatentModel(Protocol):
    """p(z) = N(0, I) of dimension D (latents), p(x|z), q(z|x): all that objectives and estimators ask of a model."""

    latents: int

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x) with parameters (B, D), from x (B, *event)."""
        ...

    def likelihood(self, z: Tensor) -> Likelihood:
        """p(x|z) with parameters (K, B, *event), from z (K, B, D)."""
        ...


@runtime_checkable
class ConjugateModel(LatentModel, Protocol):
    """A model whose expected log-likelihood under q has a closed form, and with it the ELBO."""

    def expected_log_likelihood(self, x: Tensor, q: Gaussian) -> Tensor:
        """E_q log p(x|z) in nats, (B,), from x (B, *event) and q with parameters (B, D)."""
        ...


def gaussian(variance: float) -> Callable[[Tensor], Gaussian]:
    """A decoder head: the map from a mean (K, B, *event) to N(mean, variance I), the variance positive and fixed."""
    if within("variance", variance, 0) == 0:
        raise ValueError("variance must be positive, got 0; use a small positive value.")
    log_std = 0.5 * math.log(variance)
    return lambda mean: Gaussian(mean, mean.new_full((), log_std))


def expected_gaussian_log_likelihood(x: Tensor, q: Gaussian, weight: Tensor, variance: float) -> Tensor:
    """E_q log N(x; weight z, variance I) in nats, (B,), of x (B, n), q with parameters (B, D), weight (n, D)."""
    spread = (2 * q.log_std).exp() @ weight.square().sum(0)
    error = (x - q.mean @ weight.mT).square().sum(1) + spread
    return -0.5 * error / variance - x.shape[1] * (HALF_LOG_TWO_PI + 0.5 * math.log(variance))


def largest_parameter(model: nn.Module) -> Tensor:
    """The bound a = max |parameter| of the paper's assumption as it is now, a scalar tensor."""
    return torch.stack([p.detach().abs().max() for p in model.parameters() if p.numel()]).max()
