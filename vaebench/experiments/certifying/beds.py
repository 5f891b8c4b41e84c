"""Reference beds: small models whose exact gradient is known, on which any estimator can be judged."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaebench.data import linear_gaussian
from vaebench.models import deep_gaussian_vae, linear_vae, mlp_vae

ROWS, FEATURES, HIDDEN = 32, 6, (5,)  # minibatches are drawn of the rows; a quadrature takes as long as there are rows


class Bed(NamedTuple):
    """A model in float64 and its data."""

    model: nn.Module
    data: Tensor


def linear(generator: torch.Generator, latents: int = 2) -> Bed:
    """The linear VAE: everything about the ELBO has a closed form, and with one latent IWAE is a quadrature."""
    data = linear_gaussian(generator=generator, dtype=torch.float64)
    return Bed(linear_vae(latents=latents, generator=generator, dtype=torch.float64), data)


def one_latent(generator: torch.Generator) -> Bed:
    """A tanh net with one latent and a Bernoulli likelihood, by quadrature."""
    return Bed(_net(1, generator), _bits(generator))


def two_latents(generator: torch.Generator) -> Bed:
    """The same with two latents."""
    return Bed(_net(2, generator), _bits(generator))


def deep_gaussian(generator: torch.Generator) -> Bed:
    """The paper's deep Gaussian VAE, soft-clipped everywhere, by quadrature over two latents."""
    model = deep_gaussian_vae((FEATURES,), HIDDEN, 2, generator=generator, dtype=torch.float64)
    return Bed(model, linear_gaussian(n=ROWS, generator=generator, dtype=torch.float64))


def _net(latents: int, generator: torch.Generator) -> nn.Module:
    return mlp_vae((FEATURES,), HIDDEN, latents, generator=generator, dtype=torch.float64)


def _bits(generator: torch.Generator) -> Tensor:
    return torch.rand(ROWS, FEATURES, generator=generator, dtype=torch.float64).round()


REFERENCE: dict[str, Callable[[torch.Generator], Bed]] = {
    "one latent": one_latent,
    "two latents": two_latents,
    "deep Gaussian": deep_gaussian,
}
