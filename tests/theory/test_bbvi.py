"""Variational targets with closed forms against autograd, quadrature and Monte Carlo."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.func import grad, jacrev, vmap

from vaebench.theory import quadrature
from vaebench.theory.problems import poisson, regression


@pytest.fixture
def target():
    """Regression of 30 responses on three correlated predictors."""
    g = torch.Generator().manual_seed(2)
    design = torch.randn(30, 3, generator=g, dtype=torch.float64)
    design[:, 1] += 0.8 * design[:, 0]
    response = design @ torch.tensor([1.0, -0.5, 0.2]).double() + 0.5 * torch.randn(30, generator=g).double()
    return design, response, regression.regression(design, response, 0.25, 2.0)


@pytest.fixture
def params():
    return regression.MeanField(torch.tensor([0.3, -1.0, 0.7]).double(), torch.tensor([-1.0, 0.2, -0.4]).double())


def joint(z, design, response):
    """The log of p(y, z), straight from the model."""
    likelihood = Normal(z @ design.mT, 0.5).log_prob(response).sum(-1)
    return likelihood + Normal(torch.zeros_like(z), math.sqrt(2.0)).log_prob(z).sum(-1)


def test_evidence_and_posterior_are_those_of_the_model(target, generator):
    design, response, posterior = target
    cov = 0.25 * torch.eye(30, dtype=torch.float64) + 2.0 * design @ design.mT
    marginal = MultivariateNormal(torch.zeros(30, dtype=torch.float64), cov).log_prob(response)
    assert float(posterior.log_evidence) == pytest.approx(float(marginal), rel=1e-12)
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    density = MultivariateNormal(posterior.mean, precision_matrix=posterior.precision).log_prob(z)
    assert torch.allclose(posterior.log_evidence + density, joint(z, design, response))


def test_objective_is_evidence_and_divergence(target, params):
    q = MultivariateNormal(params.mean, torch.diag((2 * params.log_std).exp()))
    p = MultivariateNormal(target[2].mean, precision_matrix=target[2].precision)
    exact = kl_divergence(q, p) - target[2].log_evidence
    assert regression.objective(params, target[2]) == pytest.approx(float(exact), rel=1e-12)


def test_gradient_and_hessian_are_autograd(target, params):
    exact = grad(regression.objective)(params, target[2])
    for a, b in zip(regression.gradient(params, target[2]), exact, strict=True):
        assert torch.allclose(a, b)
    flat = lambda v: regression.objective(regression.MeanField(*v.split(3)), target[2])
    assert torch.allclose(regression.hessian(params, target[2]), jacrev(grad(flat))(torch.cat(params)))


def test_optimum_is_stationary_with_its_value(target, generator):
    best, value = regression.optimum(target[2])
    assert torch.cat(regression.gradient(best, target[2])).abs().max() < 1e-12
    assert regression.objective(best, target[2]) == pytest.approx(float(value), rel=1e-12)
    for _ in range(5):
        step = torch.randn(2, 3, generator=generator, dtype=torch.float64)
        assert (
            regression.objective(regression.MeanField(*(p + s for p, s in zip(best, step, strict=True))), target[2])
            > value
        )


def test_smoothness_is_attained(target):
    for w in (-3.0, 1.0):
        bound = regression.smoothness(target[2], w)
        corner = regression.MeanField(target[2].mean, torch.full((3,), w, dtype=torch.float64))
        assert float(torch.linalg.eigvalsh(regression.hessian(corner, target[2]))[-1]) == pytest.approx(bound)


def variance_is(mine, draws):
    """|z| < 4.5 for every coordinate's variance: about 7e-6 each."""
    squared = (draws - draws.mean(0)).square()
    error = squared.std(0) / math.sqrt(len(draws))
    return bool(((squared.mean(0) - mine) / error).abs().max() < 4.5)


def test_pathwise_variance_by_monte_carlo(target, params, generator):
    """From autograd through the joint density, 100,000 draws."""
    design, response, posterior = target

    def negative_elbo(p, eps):
        return -joint(p.mean + p.log_std.exp() * eps, design, response) - p.log_std.sum()

    eps = torch.randn(100_000, 3, generator=generator, dtype=torch.float64)
    draws = vmap(grad(negative_elbo), (None, 0))(params, eps)
    mine = regression.pathwise_variance(params, posterior)
    assert variance_is(torch.cat(mine), torch.cat(draws, 1))
    assert not variance_is(torch.cat(mine) * 0.95, torch.cat(draws, 1))  # negative control
    mean = torch.cat(draws, 1).mean(0) - torch.cat(regression.gradient(params, posterior))
    assert (mean.abs() < 4.5 * (torch.cat(mine) / 100_000).sqrt()).all()


@pytest.fixture
def point():
    return regression.MeanField(torch.tensor(0.4, dtype=torch.float64), torch.tensor(-0.7, dtype=torch.float64))


def log_joint(z, count):
    """The log of p(y, z) of the Poisson target."""
    return count * z - z.exp() - math.lgamma(count + 1) - z.square() / 2 - math.log(2 * math.pi) / 2


def test_poisson_objective_is_quadrature(point):
    rule = quadrature.gauss_hermite(40)

    def integrand(eps):
        z = point.mean + point.log_std.exp() * eps[:, 0]
        return Normal(point.mean, point.log_std.exp()).log_prob(z) - log_joint(z, 3)

    exact = quadrature.expectation(integrand, rule)
    assert float(poisson.objective(point, 3)) == pytest.approx(float(exact), rel=1e-12)


def test_poisson_derivatives_are_autograd(point):
    for mine, exact in zip(poisson.gradient(point, 3), grad(poisson.objective)(point, 3), strict=True):
        assert torch.allclose(mine, exact)
    flat = lambda v: poisson.objective(regression.MeanField(v[0], v[1]), 3)
    assert torch.allclose(poisson.hessian(point), jacrev(grad(flat))(torch.stack(point)))


@pytest.mark.parametrize("count", [0, 3, 50, 1000])
def test_poisson_optimum_lies_just_above_the_evidence(count):
    best, value = poisson.optimum(count)
    assert torch.stack(poisson.gradient(best, count)).abs().max() < 1e-9 * (1 + count)
    centre = best.mean + best.log_std.exp() * torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    log_evidence = torch.logsumexp(log_joint(centre, count), 0) + (centre[1] - centre[0]).log()
    assert 0 < float(value + log_evidence) < 0.02
    if count == 3:
        assert float(-log_evidence) == pytest.approx(2.516535, abs=1e-6)


def test_poisson_smoothness_bounds_the_box_and_is_attained(generator):
    bound = poisson.smoothness(1.0, 0.3)
    box = torch.rand(200, 2, generator=generator, dtype=torch.float64) * 4 - torch.tensor([3.0, 3.7])
    curvature = torch.linalg.eigvalsh(poisson.hessian(regression.MeanField(box[:, 0], box[:, 1])))[:, -1]
    assert (curvature <= bound).all()
    assert curvature.max() > 0.3 * bound


def test_poisson_pathwise_variance_is_quadrature(point):
    rule = quadrature.gauss_hermite(60)

    def draws(eps):
        z = point.mean + point.log_std.exp() * eps[:, 0]
        slope = z.exp() + z - 3
        return torch.stack([slope, point.log_std.exp() * eps[:, 0] * slope - 1], 1)

    mean = quadrature.expectation(draws, rule)
    exact = quadrature.expectation(lambda eps: draws(eps).square(), rule) - mean.square()
    assert torch.allclose(torch.stack(poisson.gradient(point, 3)), mean)
    assert torch.allclose(torch.stack(poisson.pathwise_variance(point, 3)), exact)
