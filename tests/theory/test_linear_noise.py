"""The linear VAE's gradient noise against autograd, exact quadrature and Monte Carlo."""

import math

import pytest
import torch
from torch.func import grad, vmap

from vaebench.theory.problems import linear, linear_noise


@pytest.fixture
def rule():
    """Gauss-Hermite, three points in each of two dimensions: exact up to degree five."""
    node = torch.tensor([-math.sqrt(3), 0.0, math.sqrt(3)], dtype=torch.float64)
    weight = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    return torch.cartesian_prod(node, node), torch.cartesian_prod(weight, weight).prod(-1)


def negative_elbo(params, x, noise, s, beta):
    """One example, one draw, with the KL in closed form."""
    mean = x @ params.V.mT
    error = x - (mean + (params.eta / 2).exp() * noise) @ params.W.mT
    kl = (params.eta.exp() + mean.square() - 1 - params.eta).sum() / 2
    return error.square().sum() / (2 * s) + beta * kl


def test_sample_gradient_is_autograd(bed, generator):
    noise = torch.randn(256, 2, generator=generator, dtype=torch.float64)
    mine = linear_noise.sample_gradient(bed.params, bed.data, noise, bed.noise_variance, bed.beta)
    exact = vmap(grad(negative_elbo), (None, 0, 0, None, None))(
        bed.params, bed.data, noise, bed.noise_variance, bed.beta
    )
    for a, b in zip(mine, exact, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_sample_gradient_is_unbiased(bed, rule):
    nodes, weights = rule
    draws = linear_noise.sample_gradient(bed.params, bed.data, nodes[:, None], bed.noise_variance, bed.beta)
    mean = torch.tensordot(weights, linear.flatten(draws), 1).mean(0)
    exact = linear.flatten(linear.gradient(bed.params, bed.scatter, bed.noise_variance, bed.beta))
    assert torch.allclose(mean, exact, atol=1e-12)


def test_second_moments_are_exact(bed, rule):
    nodes, weights = rule
    g = linear_noise.sample_gradient(bed.params, bed.data, nodes[:, None], bed.noise_variance, bed.beta)
    mine = linear_noise.second_moments(bed.params, bed.data, bed.noise_variance, bed.beta)
    assert torch.allclose(mine.W, torch.tensordot(weights, g.W.square().sum((-2, -1)), 1), rtol=1e-12)
    assert torch.allclose(mine.V, torch.tensordot(weights, g.V.square().sum((-2, -1)), 1), rtol=1e-12)
    assert torch.allclose(mine.eta, torch.tensordot(weights, g.eta.square(), 1), rtol=1e-12)


def test_covariance_is_exact(bed, rule):
    nodes, weights = rule
    mine = linear_noise.gradient_covariance(bed.params, bed.data, bed.noise_variance, bed.beta)
    g = linear.flatten(linear_noise.sample_gradient(bed.params, bed.data, nodes[:, None], bed.noise_variance, bed.beta))
    conditional = torch.tensordot(weights, g, 1)
    between = conditional - conditional.mean(0)
    assert torch.allclose(mine.data, between.mT @ between / 256, atol=1e-11)
    within = g - conditional
    exact = torch.einsum("k,kni,knj->ij", weights, within, within) / 256
    assert torch.allclose(mine.latent, exact, atol=1e-11)


def test_covariance_and_second_moments_agree(bed):
    total = linear_noise.gradient_covariance(bed.params, bed.data, bed.noise_variance, bed.beta).at(1)
    moments = linear_noise.second_moments(bed.params, bed.data, bed.noise_variance, bed.beta)
    mean = linear.flatten(linear.gradient(bed.params, bed.scatter, bed.noise_variance, bed.beta))
    second = sum(float(block.mean(0).sum()) for block in moments)
    assert float(total.trace() + mean.square().sum()) == pytest.approx(second, rel=1e-12)


def test_batches_and_draws_divide_their_own_parts(bed, generator):
    """Monte Carlo over 4000 batches of B = 8 examples, M = 4 draws: |z| < 4.5, false alarm about 1e-5."""
    batches, b, m = 4000, 8, 4
    covariance = linear_noise.gradient_covariance(bed.params, bed.data, bed.noise_variance, bed.beta)
    rows = bed.data[torch.randint(256, (batches, b, 1), generator=generator)]
    noise = torch.randn(batches, b, m, 2, generator=generator, dtype=torch.float64)
    g = linear.flatten(linear_noise.sample_gradient(bed.params, rows, noise, bed.noise_variance, bed.beta)).mean((1, 2))
    exact = linear.flatten(linear.gradient(bed.params, bed.scatter, bed.noise_variance, bed.beta))
    squared = (g - exact).square().sum(-1)
    error = squared.std() / math.sqrt(batches)
    assert abs(squared.mean() - covariance.at(b, m).trace()) < 4.5 * error
    naive = (covariance.data + covariance.latent).trace() / (b * m)  # negative control: draws do not help data
    assert abs(squared.mean() - naive) > 20 * error


def test_a_fleet_is_its_members(bed):
    fleet = linear.LinearParameters(*(torch.stack([b, 0.5 * b]) for b in bed.params))
    half = linear.LinearParameters(*(0.5 * b for b in bed.params))
    cov = vmap(lambda p: linear_noise.gradient_covariance(p, bed.data, 0.5, 1.3).at(2, 3))(fleet)
    assert torch.allclose(cov[1], linear_noise.gradient_covariance(half, bed.data, 0.5, 1.3).at(2, 3))
    moments = vmap(lambda p: linear_noise.second_moments(p, bed.data, 0.5, 1.3))(fleet)
    assert torch.allclose(moments.eta[1], linear_noise.second_moments(half, bed.data, 0.5, 1.3).eta)
