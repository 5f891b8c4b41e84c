"""Where estimators are judged: nets small enough for exact bounds, in float64, away from their optimum.

Both have one latent, so that quadrature is exact to 1e-13, and enough rows for the gradient of a batch to be
nearly normal: with four rows Hotelling's test called one of thirty runs of correct code wrong.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vaebench.data import linear_gaussian
from vaebench.models import VAE, gaussian, mlp_vae
from vaebench.models.activations import relu

Bed = tuple[VAE, Tensor]
ROWS = 32
PIXELS = 6


def linear(generator: torch.Generator) -> Bed:
    """Linear encoder and decoder, unit-variance Gaussian: a linear VAE with 26 parameters."""
    model = mlp_vae((PIXELS,), (), 1, relu(), gaussian(1.0), generator, torch.float64)
    return _scaled(model, 0.8), 0.5 * linear_gaussian(n=ROWS, generator=generator, dtype=torch.float64)


def mlp(generator: torch.Generator) -> Bed:
    """A tanh net with four hidden units, Bernoulli likelihood and 76 parameters, on binary data."""
    model = mlp_vae((PIXELS,), (4,), 1, generator=generator, dtype=torch.float64)
    return _scaled(model, 2.0), torch.rand(ROWS, PIXELS, generator=generator, dtype=torch.float64).round()


def _scaled(model: VAE, factor: float) -> VAE:
    # Weights that are uneven, for bounds that differ, and not so wide that quadrature fails.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


BEDS: dict[str, Callable[[torch.Generator], Bed]] = {"linear": linear, "mlp": mlp}
