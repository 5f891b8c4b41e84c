"""Distributions whose noise is an argument.

Parameters and values broadcast to (K, B, *event); `log_prob` sums everything behind the first two axes and
returns (K, B). `torch.distributions` takes neither noise nor a generator, and a Distribution cannot leave
`torch.func.vmap`; these are plain tuples of tensors.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Likelihood(Protocol):
    """What a decoder returns: a distribution over x."""

    @property
    def mean(self) -> Tensor:
        """Expected x, (K, B, *event)."""
        ...

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of `value` (B, *event), in nats, (K, B)."""
        ...


def sum_event(elementwise: Tensor) -> Tensor:
    """Sum everything behind the first two axes: (K, B, *event) -> (K, B)."""
    return elementwise.flatten(2).sum(2)


class Gaussian(NamedTuple):
    """Independent Gaussians: `mean` is (B, *event) or (K, B, *event), `log_std` broadcasts against it."""

    mean: Tensor
    log_std: Tensor

    def transport(self, noise: Tensor) -> Tensor:
        """Samples mean + std * noise from standard normal noise (K, B, *event), differentiable in the parameters."""
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, (K, B), of points that broadcast to (K, B, *event)."""
        off = value - self.mean
        if self.log_std.ndim == 0:  # as in a decoder: three passes over the event less, and two in the gradient
            size = math.prod(off.shape[2:])
            exponent = sum_event(off.square()) * (-0.5 * (-2 * self.log_std).exp())
            return (exponent - size * HALF_LOG_TWO_PI).sub(self.log_std, alpha=size)
        standardised = off * (-self.log_std).exp()
        return sum_event(-0.5 * standardised.square() - self.log_std - HALF_LOG_TWO_PI)

    def kl_to_standard_normal(self) -> Tensor:
        """KL(q || N(0, I)) in nats, (B,), of parameters (B, D) (Kingma & Welling, 2014, appendix B)."""
        divergence = 0.5 * (self.mean.square() + torch.expm1(2 * self.log_std)) - self.log_std
        return divergence.flatten(1).sum(1)

    def detach(self) -> "Gaussian":
        """The same distribution, frozen: no gradient reaches its parameters."""
        return Gaussian(self.mean.detach(), self.log_std.detach())


class Bernoulli(NamedTuple):
    """Independent Bernoullis from logits; x in [0, 1] is taken as in continuous pixel data."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """Probability of a one, (K, B, *event)."""
        return self.logits.sigmoid()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of x (B, *event) in [0, 1], in nats, (K, B); exact for any logit (no clamp)."""
        target = value.expand_as(self.logits)
        return -sum_event(F.binary_cross_entropy_with_logits(self.logits, target, reduction="none"))


class Poisson(NamedTuple):
    """Independent Poissons from log-rates."""

    log_rate: Tensor

    @property
    def mean(self) -> Tensor:
        """Rate, (K, B, *event)."""
        return self.log_rate.exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of counts (B, *event) in nats, (K, B)."""
        return sum_event(value * self.log_rate - self.log_rate.exp() - torch.lgamma(value + 1))


def standard_normal_log_prob(value: Tensor) -> Tensor:
    """Log-density of N(0, I), the prior of every model, in nats: (K, B, D) -> (K, B)."""
    return -0.5 * sum_event(value.square()) - HALF_LOG_TWO_PI * math.prod(value.shape[2:])
