"""What estimators ask of a model, and what a model asks of its input."""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vaebench.models.distributions import HALF_LOG_TWO_PI, Bernoulli, Gaussian, Likelihood
from vaebench.support.checks import within
from vaebench.support.registry import Registry

MODELS: Registry[Callable[..., "LatentModel"]] = Registry("model", "vaebench.models")


@runtime_checkable
class LatentModel(Protocol):
    """p(z) = N(0, I), p(x|z) and q(z|x): all that objectives and estimators ask of a model.

    Attributes:
        latents: D, the dimension of z.
    """

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
    """A decoder head N(mean, c^2 I) with fixed variance.

    Args:
        variance: c^2 > 0.

    Returns:
        The map from a mean (K, B, *event) to the likelihood.

    Raises:
        ValueError: if the variance is not positive.
    """
    if within("variance", variance, 0) == 0:
        raise ValueError("variance must be positive, got 0; use a small positive value.")
    log_std = 0.5 * math.log(variance)
    return lambda mean: Gaussian(mean, mean.new_full((), log_std))


def expected_gaussian_log_likelihood(x: Tensor, q: Gaussian, weight: Tensor, variance: float) -> Tensor:
    """E_q log N(x; weight z, variance I) for a Gaussian q, in closed form.

    Args:
        x: (B, n).
        q: parameters (B, D).
        weight: (n, D).
        variance: of the noise.

    Returns:
        (B,) in nats.
    """
    spread = (2 * q.log_std).exp() @ weight.square().sum(0)
    error = (x - q.mean @ weight.mT).square().sum(1) + spread
    return -0.5 * error / variance - x.shape[1] * (HALF_LOG_TWO_PI + 0.5 * math.log(variance))


def largest_parameter(model: nn.Module) -> Tensor:
    """The bound a = max |parameter| of the paper's assumption, as it is now.

    Args:
        model: any module.

    Returns:
        Scalar tensor.
    """
    return torch.stack([parameter.detach().abs().max() for parameter in model.parameters()]).max()


def as_input(x: Tensor, like: Tensor) -> Tensor:
    """Data as a model takes it: stored bytes become pixels in [0, 1], on the model's device and in its dtype.

    Args:
        x: (..., *event), bytes (uint8) on any device, or floats, which are left alone.
        like: a parameter of the model.

    Returns:
        (..., *event).
    """
    return x.to(like.device, non_blocking=True).to(like.dtype) / 255 if x.dtype == torch.uint8 else x


def minibatch(data: Tensor, indices: Tensor, like: Tensor) -> Tensor:
    """Rows of the data as a model takes them, in a quarter of the time of `data[indices]`.

    Args:
        data: (N, *event), bytes (uint8) on any device, or floats on the model's.
        indices: (..., B), on any device.
        like: a parameter of the model.

    Returns:
        (..., B, *event).
    """
    rows = data.index_select(0, indices.to(data.device).flatten())
    return as_input(rows.unflatten(0, indices.shape), like)


def check_input(model: LatentModel, x: Tensor) -> None:
    """Refuse data that the model cannot be trained on. Synchronises: call it once, before a loop.

    Args:
        model: the model.
        x: data, (B, *event).

    Raises:
        ValueError: if x is empty, has another event shape than the decoder makes, holds NaN or infinity, or
            leaves [0, 1] under a Bernoulli likelihood.
    """
    if x.ndim < 2 or len(x) < 1:
        raise ValueError(f"x must be (B, *event) with B at least 1, got shape {tuple(x.shape)}.")
    if x.dtype == torch.uint8:  # finite and in [0, 1] once converted: one row stands for all
        x = as_input(x[:1], largest_parameter(model))  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        likelihood = model.likelihood(torch.zeros(1, 1, model.latents, dtype=x.dtype, device=x.device))
    event = tuple(likelihood.mean.shape[2:])
    if tuple(x.shape[1:]) != event:
        raise ValueError(f"x must be (B, {', '.join(map(str, event))}) for this model, got shape {tuple(x.shape)}.")
    if not x.isfinite().all():
        bad = int((~x.isfinite()).sum())
        raise ValueError(f"x holds {bad} NaN or infinite value(s); remove or mend them first.")
    if isinstance(likelihood, Bernoulli) and not ((x >= 0) & (x <= 1)).all():
        low, high = float(x.min()), float(x.max())
        raise ValueError(
            f"x must lie in [0, 1] for a Bernoulli likelihood, got values in [{low:g}, {high:g}]; rescale it."
        )
