"""What a reported loss and its gradient should be: exact by quadrature, or from many draws of our own log-weights."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.gates.reference import exact_by_quadrature
from vaebench.gradients.estimators import draw_noise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.models import VAE
from vaebench.models.distributions import HALF_LOG_TWO_PI, Bernoulli
from vaebench.support.statistics import Estimate
from vaebench.theory import quadrature

DRAWS = 200_000


class Target(NamedTuple):
    """A loss in nats, batch mean, and its gradient (p,), each None where nothing is said of it."""

    value: Estimate | None
    gradient: Tensor | None


Targeted = Callable[[VAE, Tensor], Target]


def bound(samples: int = 1, alpha: float = 1.0, beta: float = 1.0, points: int = 401, outer: int = 800) -> Targeted:
    """Minus a bound of a model with one latent, exactly, by the trapezoid rule.

    Near-constant directions of the gradient resolve errors of 1e-9, hence finer rules than a training run needs.

    Args:
        samples: K.
        alpha: of the bound.
        beta: of the bound.
        points: nodes of the latent.
        outer: nodes of the second integral, that over the mean of K weights.

    Returns:
        The target.
    """
    exact = exact_by_quadrature(quadrature.trapezoid(points), outer)

    def of(model: VAE, x: Tensor) -> Target:
        loss = Loss(model, exact, Objective(samples, alpha, beta))
        value = loss(x, x)
        gradients = torch.autograd.grad(value, list(model.parameters()))
        return Target(Estimate(float(value.detach()), 0.0), torch.cat([g.flatten() for g in gradients]))

    return of


def mixture(*parts: tuple[float, Targeted]) -> Targeted:
    """A weighted sum."""

    def of(model: VAE, x: Tensor) -> Target:
        found = [(weight, part(model, x)) for weight, part in parts]
        value = error = 0.0
        for weight, target in found:
            value, error = value + weight * target.value.value, error + (weight * target.value.error) ** 2
        gradients = [target.gradient for _, target in found]
        known = all(gradient is not None for gradient in gradients)
        total = sum(w * g for (w, _), g in zip(found, gradients, strict=True)) if known else None
        return Target(Estimate(value, error**0.5), total)

    return of


def blocks(encoder: Targeted, decoder: Targeted) -> Targeted:
    """The encoder's gradient of one target, the decoder's gradient and the value of another."""

    def of(model: VAE, x: Tensor) -> Target:
        inner, outer = encoder(model, x), decoder(model, x)
        split = sum(p.numel() for p in model.encoder.parameters())
        return Target(outer.value, torch.cat([inner.gradient[:split], outer.gradient[split:]]))

    return of


def without_constant(target: Targeted) -> Targeted:
    """The same with the Gaussian's d/2 log(2 pi) left out of the loss, as is usual beside a squared error."""

    def of(model: VAE, x: Tensor) -> Target:
        value, gradient = target(model, x)
        constant = 0.0 if model.head is Bernoulli else HALF_LOG_TWO_PI * x[0].numel()
        return Target(Estimate(value.value - constant, value.error), gradient)

    return of


def without_encoder(target: Targeted) -> Targeted:
    """The same with a gradient of zero for the encoder."""

    def of(model: VAE, x: Tensor) -> Target:
        value, gradient = target(model, x)
        split = sum(p.numel() for p in model.encoder.parameters())
        return Target(value, torch.cat([torch.zeros_like(gradient[:split]), gradient[split:]]))

    return of


def averaged(samples: int, loss: Callable[[Tensor], Tensor]) -> Targeted:
    """A function of log-weights (K, B), its mean over draws and rows: a value only."""

    def of(model: VAE, x: Tensor) -> Target:
        generator, many = torch.Generator().manual_seed(1), x.repeat(DRAWS // len(x), *[1] * (x.ndim - 1))
        objective = Objective(samples)
        with torch.no_grad():
            q = model.posterior(many)
            z = q.transport(draw_noise(model, many, objective, generator))
            found = loss(objective.log_weights(model, many, z, q))
        found = found.view(-1, len(x)).mean(1)
        return Target(Estimate(float(found.mean()), float(found.std() / len(found) ** 0.5)), None)

    return of


def weighted_mean(samples: int) -> Targeted:
    """Minus the self-normalised mean of the log-weights: the bound less log K less the weights' entropy."""
    return averaged(samples, lambda log_w: -(torch.softmax(log_w, 0) * log_w).sum(0))


def tempered(samples: int, power: float) -> Targeted:
    """Minus (1/c) log (1/K) sum_k w_k^c: the exponent c that a scale of the data set brings in."""
    return averaged(
        samples, lambda log_w: -(torch.logsumexp(power * log_w, 0) - torch.tensor(float(samples)).log()) / power
    )
