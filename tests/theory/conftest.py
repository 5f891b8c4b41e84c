"""One shared problem with a known answer: a small linear VAE."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.func import vmap

from vaebench.theory import series
from vaebench.theory.problems import linear, linear_noise


class Bed(NamedTuple):
    data: torch.Tensor
    scatter: torch.Tensor
    params: linear.LinearParameters
    noise_variance: float
    beta: float


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20250501)


def make_bed():
    """Away from the optimum: d = 6, q = 2, N = 256, s = 0.5: 26 parameters; beta != 1 so that it matters."""
    g = torch.Generator().manual_seed(7)
    spread = torch.tensor([0.7, 0.5, 0.3, 0.25, 0.2, 0.15], dtype=torch.float64)
    mix = torch.randn(6, 6, generator=g, dtype=torch.float64) * spread
    data = torch.randn(256, 6, generator=g, dtype=torch.float64) @ mix.mT
    data = data - data.mean(0)
    params = linear.LinearParameters(
        torch.randn(6, 2, generator=g, dtype=torch.float64) * 0.4,
        torch.randn(2, 6, generator=g, dtype=torch.float64) * 0.3,
        torch.randn(2, generator=g, dtype=torch.float64) * 0.5 - 0.5,
    )
    return Bed(data, data.mT @ data / len(data), params, 0.5, 1.3)


@pytest.fixture
def bed():
    return make_bed()


class Record(NamedTuple):
    """A fleet's run of SGD with everything the theory speaks of, exact at every step."""

    steps: np.ndarray  # (n,)
    values: np.ndarray  # (S, n + 1)
    squared_gradients: np.ndarray  # (S, n), at x_{k-1}, as all below
    noise: np.ndarray  # trace of the covariance
    smoothness: np.ndarray  # largest eigenvalue of the Hessian
    curved_noise: np.ndarray  # tr(H Sigma)
    curved_gradient: np.ndarray  # grad' H grad
    minimum: float


def examine(params, bed, batch):
    """Every exact quantity at one point of the path."""
    g = linear.flatten(linear.gradient(params, bed.scatter, bed.noise_variance, bed.beta))
    h = linear.hessian(params, bed.scatter, bed.noise_variance, bed.beta)
    cov = linear_noise.gradient_covariance(params, bed.data, bed.noise_variance, bed.beta).at(batch)
    return g.square().sum(), cov.trace(), torch.linalg.eigvalsh(h)[-1], (h * cov).sum(), g @ h @ g


def simulate(bed, start, steps, seeds, generator, batch=8, inspect=True, shrink=1.0):
    """SGD from one start; `shrink` scales the gradient estimate: the fault of the negative controls."""
    fleet = linear.LinearParameters(*(b.expand(seeds, *b.shape).clone() for b in start))
    keys = (bed.scatter, bed.noise_variance, bed.beta)
    look = (
        vmap(lambda p: examine(p, bed, batch))
        if inspect
        else vmap(lambda p: (linear.flatten(linear.gradient(p, *keys)).square().sum(),) * 5)
    )
    value = vmap(lambda p: linear.objective(p, *keys))
    draw = vmap(lambda p, x, e: tuple(b.mean(0) for b in linear_noise.sample_gradient(p, x, e, *keys[1:])))
    values, rows = [value(fleet)], []
    for step in steps.tolist():
        rows.append(torch.stack(look(fleet)))
        x = bed.data[torch.randint(len(bed.data), (seeds, batch), generator=generator)]
        noise = torch.randn(seeds, batch, len(start.eta), generator=generator, dtype=torch.float64)
        moves = draw(fleet, x, noise)
        fleet = linear.LinearParameters(*(b - step * shrink * m for b, m in zip(fleet, moves, strict=True)))
        values.append(value(fleet))
    minimum = linear.optimum(bed.scatter, len(start.eta), bed.noise_variance, bed.beta)[1]
    return Record(steps, torch.stack(values, -1).numpy(), *torch.stack(rows, -1).numpy(), float(minimum))


@pytest.fixture(scope="session")
def small_bed():
    """The first 64 examples: per-step covariances stay cheap."""
    full = make_bed()
    data = full.data[:64] - full.data[:64].mean(0)
    return full._replace(data=data, scatter=data.mT @ data / 64)


@pytest.fixture(scope="session")
def record(small_bed):
    """From a generic start: 16 seeds, 400 steps of 0.03 / sqrt(k), B = 8."""
    g = torch.Generator().manual_seed(11)
    return simulate(small_bed, small_bed.params, series.inverse_sqrt_steps(0.03, 400), 16, g)


@pytest.fixture(scope="session")
def shrunk(small_bed):
    """The same run with gradients halved: biased."""
    g = torch.Generator().manual_seed(11)
    return simulate(small_bed, small_bed.params, series.inverse_sqrt_steps(0.03, 400), 16, g, shrink=0.5)


@pytest.fixture(scope="session")
def run_sgd():
    return simulate
