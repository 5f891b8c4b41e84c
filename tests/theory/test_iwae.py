"""Exact multi-sample bounds against closed forms, refinement and Monte Carlo."""

import math

import pytest
import torch
from torch.func import grad, vmap

from vaebench.theory import quadrature
from vaebench.theory.problems import linear

S = 0.5


@pytest.fixture
def small():
    """A linear VAE with one latent, d = 3, and eight examples."""
    g = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    params = linear.LinearParameters(0.7 * draw(3, 1), 0.4 * draw(1, 3), 0.3 * draw(1) - 0.5)
    return params, draw(8, 3)


def weights_at(params, x, rule, s=S, beta=1.0):
    return linear.log_weights(params, x[:, None], rule.nodes, s, beta)


def bound(params, x, rule, samples, alpha=0.0, **options):
    return quadrature.importance_bound(weights_at(params, x, rule), rule, samples, alpha, **options)


def test_rules_integrate_the_normal_moments():
    for rule in (quadrature.gauss_hermite(8, 2), quadrature.trapezoid(80, 2)):
        a, b = rule.nodes.T
        assert float(rule.weights.sum()) == pytest.approx(1)
        assert float(rule.weights @ (a**4 * b**2)) == pytest.approx(3, rel=1e-12)
        assert abs(float(rule.weights @ (a**3 * b))) < 1e-12


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_two_weights_as_likely_as_each_other_by_hand(alpha):
    """Log-weights 0 and -6: of two draws both are 0, or one of each, or both -6, with 1/4, 1/2 and 1/4."""
    rule = quadrature.Rule(torch.tensor([[0.0], [1.0]]).double(), torch.tensor([0.5, 0.5]).double())
    log_w = torch.tensor([0.0, -6.0], dtype=torch.float64)
    mixed = math.log((1 + math.exp(6 * (alpha - 1))) / 2) / (1 - alpha)
    for samples, expected in ((1, -3.0), (2, mixed / 2 - 1.5)):
        found = quadrature.importance_bound(log_w, rule, samples, alpha)
        assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("samples", [1, 1.5, 2, 1e6])
@pytest.mark.parametrize("width", [0.0, 6.0, 300.0])
def test_the_bound_is_homogeneous_however_wide_the_weights_are(samples, width):
    """Adding a constant to all log-weights adds it to the bound: its gradient sums to one, its Hessian's rows to zero.

    Weights e^-300 apart make exp(-t w / c) zero for the heavier one, and phi is as small as it becomes.
    """
    rule = quadrature.Rule(torch.tensor([[0.0], [1.0]]).double(), torch.tensor([0.5, 0.5]).double())
    log_w = torch.tensor([0.0, -width], dtype=torch.float64)

    def of(log_w):
        return quadrature.importance_bound(log_w, rule, samples, points=4000)

    first, second = grad(of)(log_w), torch.func.hessian(of)(log_w)
    assert float(first.sum()) == pytest.approx(1, abs=1e-9)
    assert torch.allclose(second.sum(1), torch.zeros(2, dtype=torch.float64), atol=1e-8)


def test_one_sample_is_the_elbo_and_so_is_its_gradient(small):
    params, x = small
    rule = quadrature.trapezoid(201)
    scatter = x.mT @ x / len(x)
    closed = -linear.objective(params, scatter, S)
    assert bound(params, x, rule, 1).mean() == pytest.approx(float(closed), abs=2e-13)
    assert quadrature.elbo(weights_at(params, x, rule), rule).mean() == pytest.approx(float(closed), abs=2e-13)
    exact = linear.gradient(params, scatter, S)
    by_grid = grad(lambda p: -bound(p, x, rule, 1).mean())(params)
    for a, b in zip(by_grid, exact, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_evidence_by_grid_is_the_marginal(small):
    params, x = small
    rule = quadrature.trapezoid(201)
    exact = linear.log_evidence(params, x, S)
    assert torch.allclose(quadrature.log_evidence(weights_at(params, x, rule), rule), exact, atol=1e-12)


def test_bounds_rise_to_the_evidence(small):
    """And the gap closes as Var(w/p) / (2K): its log-log slope is -1."""
    params, x = small
    rule = quadrature.trapezoid(201)
    counts = [1, 1.5, 2, 5, 20, 100, 1000, 10000]
    values = torch.stack([bound(params, x, rule, k) for k in counts])
    evidence = linear.log_evidence(params, x, S)
    assert (values.diff(dim=0) > 0).all()
    assert (values < evidence).all()
    relative = (weights_at(params, x, rule) - evidence[:, None]).exp()
    variance = relative.square() @ rule.weights - 1
    light = variance < 3  # heavier weights are not yet asymptotic
    assert light.sum() >= 4
    assert torch.allclose((10000 * (evidence - values[-1]))[light], variance[light] / 2, rtol=2e-3)
    slope = ((evidence - values[-1]) / (evidence - values[-2])).log() / math.log(10)
    assert torch.allclose(slope[light], torch.full_like(slope[light], -1), atol=2e-3)


@pytest.mark.parametrize(("samples", "alpha"), [(5, 0.0), (50, 0.0), (5, 0.5), (1, 0.9)])
def test_refinement_changes_nothing(small, samples, alpha):
    params, x = small
    coarse = bound(params, x, quadrature.trapezoid(181), samples, alpha)
    fine = bound(params, x, quadrature.trapezoid(361), samples, alpha, points=700)
    assert torch.allclose(coarse, fine, atol=1e-12)


@pytest.mark.parametrize(("samples", "alpha"), [(4, 0.0), (4, 0.5), (16, 0.2)])
def test_value_and_gradient_by_monte_carlo(small, generator, samples, alpha):
    """40 batches of 500, 8 entries, all |z| (t, 39 df) below 5.5: false alarm 2e-5 a case."""
    params, x = small
    rule = quadrature.trapezoid(201)

    def estimate(p, noise):
        log_w = linear.log_weights(p, x, noise, S)
        return (((1 - alpha) * log_w).logsumexp(1) - math.log(samples)).mean() / (1 - alpha)

    noise = torch.randn(40, 500, samples, len(x), 1, generator=generator, dtype=torch.float64)
    exact_gradient = linear.flatten(grad(lambda p: bound(p, x, rule, samples, alpha).mean())(params))
    exact = torch.cat([exact_gradient, bound(params, x, rule, samples, alpha).mean()[None]])
    values = torch.stack([estimate(params, batch) for batch in noise])
    gradients = torch.stack([linear.flatten(grad(estimate)(params, batch)) for batch in noise])
    replicates = torch.cat([gradients, values[:, None]], 1)
    error = replicates.std(0) / math.sqrt(len(noise))
    assert ((replicates.mean(0) - exact) / error).abs().max() < 5.5
    other = bound(params, x, rule, samples / 2, alpha).mean()  # negative control: half the samples
    assert (values.mean() - other).abs() > 5.5 * error[-1]


def test_renyi_bound_interpolates(small):
    """Alpha -> 1 gives the ELBO; one draw gives it at every alpha; more alpha never gives more."""
    params, x = small
    rule = quadrature.trapezoid(201)
    elbo = quadrature.elbo(weights_at(params, x, rule), rule)
    assert torch.allclose(bound(params, x, rule, 1, 0.7), elbo, atol=1e-11)
    assert torch.allclose(bound(params, x, rule, 10, 0.9999), elbo, atol=1e-3)
    values = torch.stack([bound(params, x, rule, 10, a) for a in (0.0, 0.3, 0.6, 0.9)])
    assert (values.diff(dim=0) < 0).all()


def test_two_latents_on_a_tensor_grid(bed):
    rule = quadrature.trapezoid(51, 2, radius=8.0)
    x = bed.data[:4]
    log_w = linear.log_weights(bed.params, x[:, None], rule.nodes, 0.5)
    kl_closed = -torch.stack([linear.objective(bed.params, torch.outer(r, r), 0.5) for r in x])
    assert torch.allclose(quadrature.importance_bound(log_w, rule, 1), kl_closed, atol=1e-9)
    ten = quadrature.importance_bound(log_w, rule, 10)
    assert (ten > kl_closed).all()
    assert (ten < linear.log_evidence(bed.params, x, 0.5)).all()


def test_a_fleet_is_its_members(small):
    params, x = small
    rule = quadrature.trapezoid(101)
    fleet = linear.LinearParameters(*(torch.stack([b, 0.5 * b]) for b in params))
    half = linear.LinearParameters(*(0.5 * b for b in params))
    together = vmap(grad(lambda p: bound(p, x, rule, 5).mean()))(fleet)
    alone = grad(lambda p: bound(p, x, rule, 5).mean())(half)
    assert torch.allclose(linear.flatten(together)[1], linear.flatten(alone))


def test_a_deep_decoder_is_exact_with_few_nodes(generator):
    """Nine Gauss-Hermite nodes against twenty-five, and against Monte Carlo (|z| < 4.5, about 7e-6)."""
    first = torch.randn(2, 8, generator=generator, dtype=torch.float64) / 2
    second = torch.randn(8, 3, generator=generator, dtype=torch.float64) / 3
    x = torch.tensor([0.5, -0.2, 1.0], dtype=torch.float64)

    def misfit(scale, eps):
        return ((x - torch.tanh((0.3 + scale * eps) @ first) @ second) ** 2).sum(-1)

    def exact(scale, points):
        return quadrature.expectation(lambda eps: misfit(scale, eps), quadrature.gauss_hermite(points, 2))

    scale = torch.tensor(0.3, dtype=torch.float64)
    for function in (exact, grad(exact)):
        assert function(scale, 9) == pytest.approx(float(function(scale, 25)), rel=1e-4)
    draws = misfit(scale, torch.randn(100_000, 2, generator=generator, dtype=torch.float64))
    error = draws.std() / math.sqrt(100_000)
    assert abs(draws.mean() - exact(scale, 25)) < 4.5 * error


def test_senseless_arguments_are_refused(small):
    params, x = small
    rule = quadrature.trapezoid(11)
    for samples, alpha in [(0.5, 0.0), (1, 1.0), (1, -0.1), (math.nan, 0.0)]:
        with pytest.raises(ValueError, match="K >= 1 and 0 <= alpha < 1"):
            bound(params, x, rule, samples, alpha)
    with pytest.raises(ValueError, match="not 3"):
        quadrature.gauss_hermite(3, 3)
