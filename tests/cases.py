"""Shared problems: a model of every kind with a few rows of its data, in float64, drawn from a generator."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vaebench.data import diabetes, digits, linear_gaussian, patches
from vaebench.models import (
    GaussianRegression,
    LatentModel,
    PoissonRegression,
    conv_vae,
    deep_gaussian_vae,
    gaussian,
    linear_vae,
    mean_field,
    mlp_vae,
)
from vaebench.models.activations import relu, soft_clip

Case = tuple[LatentModel, Tensor]
DTYPE = torch.float64
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="compilation needs a C++ compiler on a CPU")
ABSENT_DEVICE = f"cuda:{torch.cuda.device_count()}"


def linear(generator: torch.Generator) -> Case:
    """The linear VAE with 26 parameters: every expectation has a closed form."""
    x = linear_gaussian(n=8, generator=generator, dtype=DTYPE)
    return linear_vae(generator=generator, dtype=DTYPE), x


def mlp_bernoulli(generator: torch.Generator) -> Case:
    """A small tanh net on the real digits."""
    model = mlp_vae((8, 8), hidden=(12, 10), latents=3, generator=generator, dtype=DTYPE)
    return model, digits(dtype=DTYPE)[:4]


def mlp_gaussian(generator: torch.Generator) -> Case:
    """The same with a Gaussian likelihood."""
    model = mlp_vae((8, 8), (12, 10), latents=3, likelihood=gaussian(0.3), generator=generator, dtype=DTYPE)
    return model, digits(dtype=DTYPE)[:4]


def deep_gaussian(generator: torch.Generator) -> Case:
    """The paper's deep Gaussian VAE, soft-clipped everywhere."""
    model = deep_gaussian_vae((8, 8), hidden=(12, 10), sharpness=2.0, generator=generator, dtype=DTYPE)
    return model, digits(dtype=DTYPE)[:4]


def conv32(generator: torch.Generator) -> Case:
    """The paper's convolutional net on real patches of 32 pixels."""
    return conv_vae(32, activations=relu(), generator=generator, dtype=DTYPE), patches(32, dtype=DTYPE)[:2]


def conv32_soft_clip(generator: torch.Generator) -> Case:
    """The same with soft clipping."""
    return conv_vae(32, activations=soft_clip(1.0), generator=generator, dtype=DTYPE), patches(32, dtype=DTYPE)[:2]


def conv64(generator: torch.Generator) -> Case:
    """The paper's convolutional net on real patches of 64 pixels."""
    return conv_vae(64, generator=generator, dtype=DTYPE), patches(64, dtype=DTYPE)[:2]


def mean_field_gaussian(generator: torch.Generator) -> Case:
    """Bayesian linear regression on the diabetes data; x is the response, twice."""
    table = diabetes(dtype=DTYPE)
    return _off_prior(mean_field(GaussianRegression(table[:, :-1], 0.5)), generator), table[:, -1].expand(2, -1)


def mean_field_poisson(generator: torch.Generator) -> Case:
    """Poisson regression on the diabetes data; x is the response as small counts, twice."""
    table = diabetes(dtype=DTYPE)
    counts = (table[:, -1] - table[:, -1].min()).mul(3).round()
    return _off_prior(mean_field(PoissonRegression(0.3 * table[:, :-1])), generator), counts.expand(2, -1)


def _off_prior(model: LatentModel, generator: torch.Generator) -> LatentModel:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=DTYPE) - 0.2)
    return model


MODELS: dict[str, Callable[[torch.Generator], Case]] = {
    case.__name__: case
    for case in (
        linear,
        mlp_bernoulli,
        mlp_gaussian,
        deep_gaussian,
        conv32,
        conv32_soft_clip,
        conv64,
        mean_field_gaussian,
        mean_field_poisson,
    )
}
SMALL = ("linear", "mlp_bernoulli", "mlp_gaussian", "deep_gaussian", "mean_field_gaussian", "mean_field_poisson")
