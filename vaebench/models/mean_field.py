"""Black-box variational inference behind the same protocol: one posterior, no encoder."""

from typing import Protocol

import torch
from torch import Tensor, nn

from vaebench.models.distributions import Gaussian, Likelihood, Poisson
from vaebench.models.protocol import MODELS, expected_gaussian_log_likelihood, gaussian
from vaebench.support.checks import available_device


class Target(Protocol):
    """A regression of y on z ~ N(0, I) by `features` Phi (n, D); for a prior N(0, t^2 I), multiply Phi by t."""

    features: Tensor

    def likelihood(self, z: Tensor) -> Likelihood:
        """p(y|z) with parameters (K, B, n), from z (K, B, D)."""
        ...

    def expected_log_likelihood(self, x: Tensor, q: Gaussian) -> Tensor:
        """E_q log p(y|z) in nats, (B,), from y (B, n) and q with parameters (B, D)."""
        ...


class GaussianRegression(nn.Module):
    """y ~ N(Phi z, s^2 I), with the design Phi (n, D) and the noise variance s^2: Bayesian linear regression."""

    features: Tensor

    def __init__(self, features: Tensor, noise_variance: float):
        super().__init__()
        self.register_buffer("features", features)
        self.noise_variance = float(noise_variance)
        self.head = gaussian(noise_variance)

    def likelihood(self, z: Tensor) -> Gaussian:
        """p(y|z) with mean (K, B, n), from z (K, B, D)."""
        return self.head(z @ self.features.mT)

    def expected_log_likelihood(self, x: Tensor, q: Gaussian) -> Tensor:
        """E_q log p(y|z) in nats, (B,), from y (B, n) and q with parameters (B, D)."""
        return expected_gaussian_log_likelihood(x, q, self.features, self.noise_variance)


class PoissonRegression(nn.Module):
    """y ~ Poisson(e^{Phi z}), with the design Phi (n, D): not conjugate, yet its ELBO has a closed form."""

    features: Tensor

    def __init__(self, features: Tensor):
        super().__init__()
        self.register_buffer("features", features)

    def likelihood(self, z: Tensor) -> Poisson:
        """p(y|z) with log-rates (K, B, n), from z (K, B, D)."""
        return Poisson(z @ self.features.mT)

    def expected_log_likelihood(self, x: Tensor, q: Gaussian) -> Tensor:
        """E_q log p(y|z) in nats, (B,), from y (B, n), by the mean of a log-normal."""
        mean = q.mean @ self.features.mT
        variance = (2 * q.log_std).exp() @ self.features.square().mT
        return (x * mean - (mean + 0.5 * variance).exp() - torch.lgamma(x + 1)).sum(1)


class MeanFieldModel(nn.Module):
    """q = N(mu, diag e^{2w}), mu and w (D,), for one fixed posterior (Ranganath et al., 2014).

    The whole data set is one example: x is y as a row (1, n), or a batch of copies of it.
    """

    def __init__(self, target: Target, mu: Tensor, w: Tensor):
        super().__init__()
        self.target = target
        self.mu, self.w = nn.Parameter(mu), nn.Parameter(w)
        self.latents = len(mu)

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z) with parameters (B, D), the same for every x (B, n)."""
        shape = (len(x), self.latents)
        return Gaussian(self.mu.expand(shape), self.w.expand(shape))

    def likelihood(self, z: Tensor) -> Likelihood:
        """p(y|z) with parameters (K, B, n), from z (K, B, D)."""
        return self.target.likelihood(z)

    def expected_log_likelihood(self, x: Tensor, q: Gaussian) -> Tensor:
        """E_q log p(y|z) in nats, (B,), from y (B, n) and q with parameters (B, D)."""
        return self.target.expected_log_likelihood(x, q)


@MODELS.register
def mean_field(target: Target, device: torch.device | str = "cpu") -> MeanFieldModel:
    """Black-box VI of a target, started at the prior, mu = 0 and w = 0, in the dtype of the target's features."""
    zeros = target.features.new_zeros(target.features.shape[1])
    return MeanFieldModel(target, zeros, zeros.clone()).to(available_device(device))
