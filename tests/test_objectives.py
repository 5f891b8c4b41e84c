"""Bounds as functions of log-weights, and their relations on the linear VAE."""

import math
from itertools import pairwise

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaebench.data import linear_gaussian
from vaebench.gradients.estimators import draw_noise, exact, pathwise
from vaebench.gradients.objectives import Objective
from vaebench.models import linear_vae

DRAWS = 4000


@pytest.fixture
def bed(generator):
    x = linear_gaussian(n=4, generator=generator, dtype=torch.float64)
    return linear_vae(generator=generator, dtype=torch.float64), x, generator


def values(model, x, objective, generator, draws=DRAWS):
    """Independent values of the batch-mean bound, (draws,)."""
    noise = torch.stack([draw_noise(model, x, objective, generator) for _ in range(draws)])
    with torch.no_grad():
        return torch.stack([pathwise(model, x, n, objective).mean() for n in noise])


def test_iwae_at_one_sample_is_the_elbo(bed):
    model, x, generator = bed
    noise = draw_noise(model, x, Objective(), generator)
    elbo, iwae, vr = (pathwise(model, x, noise, Objective(1, alpha)) for alpha in (1, 0, 0.5))
    torch.testing.assert_close(iwae, elbo, rtol=1e-14, atol=0)
    torch.testing.assert_close(vr, elbo, rtol=1e-14, atol=0)


@pytest.mark.parametrize("beta", [0.3, 1, 4])
def test_elbo_averages_to_its_closed_form(bed, beta):
    """6 standard errors: false alarm 2e-9."""
    model, x, generator = bed
    objective = Objective(2, beta=beta)
    sample = values(model, x, objective, generator)
    z = (sample.mean() - exact(model, x, None, objective).mean()) / (sample.std() / DRAWS**0.5)
    assert abs(z) < 6


def test_iwae_rises_with_k_to_the_log_likelihood(bed):
    """Successive rises exceed 6 standard errors; K = 256 closes at least 95 % of the gap and does not pass it."""
    model, x, generator = bed
    sizes = [1, 4, 16, 64, 256]
    samples = [values(model, x, Objective(k, 0), generator, 1500) for k in sizes]
    means = torch.stack([s.mean() for s in samples])
    errors = torch.stack([s.std() / len(s) ** 0.5 for s in samples])
    assert (means.diff() > 6 * (errors[1:].square() + errors[:-1].square()).sqrt()).all()
    limit = model.log_likelihood(x).mean()
    gaps = limit - means
    assert gaps[-1] < 0.05 * gaps[0]
    assert gaps[-1] > -6 * errors[-1]


def test_vr_iwae_lies_between(bed):
    model, x, generator = bed
    noise = draw_noise(model, x, Objective(8), generator)
    by_alpha = [pathwise(model, x, noise, Objective(8, alpha)) for alpha in (1, 0.7, 0.3, 0)]
    for lower, higher in pairwise(by_alpha):
        assert (higher > lower).all()


def test_vr_iwae_tends_to_the_elbo_as_alpha_tends_to_one(bed):
    model, x, generator = bed
    noise = draw_noise(model, x, Objective(8), generator)
    near, at = (pathwise(model, x, noise, Objective(8, alpha)) for alpha in (1 - 1e-6, 1))
    torch.testing.assert_close(near, at, rtol=0, atol=1e-3)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=6), st.sampled_from([0.0, 0.25, 1.0]))
def test_bound_is_finite_and_between_the_extremes(log_w, alpha):
    column = torch.tensor(log_w, dtype=torch.float64)
    value = Objective(len(log_w), alpha).bound(column)
    slack = 1e-9 * (1 + column.abs().max())
    assert value <= column.max() + slack
    assert value >= (column.min() if alpha == 1 else column.max() - math.log(len(log_w)) / (1 - alpha)) - slack


def test_log_k_is_exact():
    assert Objective(7, 0).bound(torch.zeros(7, dtype=torch.float64)) == pytest.approx(0, abs=1e-15)
    one_heavy = torch.tensor([0.0, -1e6, -1e6], dtype=torch.float64)
    assert Objective(3, 0).bound(one_heavy) == pytest.approx(-math.log(3), rel=1e-15)


@pytest.mark.parametrize("alpha", [0, 0.4, 1])
def test_weights_are_the_derivative_of_the_bound(alpha, generator):
    log_w = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    objective = Objective(5, alpha)
    (derivative,) = torch.autograd.grad(objective.bound(log_w).sum(), log_w)
    torch.testing.assert_close(derivative, objective.weights(log_w))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples must be an integer of at least 1, got 0"),
        ({"samples": 2.0}, "samples must be an integer of at least 1, got 2.0"),
        ({"samples": True}, "samples must be an integer of at least 1, got True"),
        ({"alpha": 1.1}, r"alpha must be in \[0, 1\], got 1.1"),
        ({"alpha": -0.1}, r"alpha must be in \[0, 1\], got -0.1"),
        ({"alpha": math.nan}, r"alpha must be in \[0, 1\], got nan"),
        ({"beta": -1.0}, "beta must be finite and at least 0, got -1.0"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Objective(**arguments)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_weights_too_small_to_count_are_zero_and_none_is_denormal(alpha):
    log_w = torch.linspace(0, -300, 301).unsqueeze(1).requires_grad_()
    objective = Objective(301, alpha)
    (slopes,) = torch.autograd.grad(objective.bound(log_w).sum(), log_w)
    weights = objective.weights(log_w.detach())
    tiny = torch.finfo(torch.float32).tiny
    for found in (slopes, weights):
        assert ((found == 0) | (found >= tiny)).all() and 0 < (found == 0).sum() < 300
    exact = torch.softmax((1 - alpha) * log_w.detach().double(), 0)
    torch.testing.assert_close(weights.double(), exact, rtol=0, atol=1e-6)  # a sum of 301 in float32
    torch.testing.assert_close(slopes, weights, rtol=1e-5, atol=1e-30)


def limits(log_w, alpha):
    """The bound and the weights of one column, to sixty digits."""
    with mpmath.workdps(60):
        t, column = 1 - mpmath.mpf(alpha), [mpmath.mpf(one) for one in log_w]
        if t == 0:
            return float(mpmath.fsum(column) / len(column)), [1 / len(column)] * len(column)
        parts = [mpmath.e ** (t * (one - max(column))) for one in column]
        total = mpmath.fsum(parts)
        return float(max(column) + mpmath.log(total / len(column)) / t), [float(one / total) for one in parts]


NEAR_ONE = [0.0, 0.5, *(1 - 2.0**-k for k in range(2, 54, 3)), 1 - 1e-7, 1 - 1e-10, 1 - 2.0**-53, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("middle", "spread"), [(-100, 1), (-100, 30), (-1e4, 300), (-1000, 0.01)])
def test_bound_weights_and_gradient_are_exact_for_every_alpha(middle, spread, dtype, generator):
    """To rounding of the log-weights: the naive logsumexp is off by 100 nats at 1 - 1e-10 in float32."""
    eps = torch.finfo(dtype).eps
    for samples in (1, 5, 200):
        log_w = (middle + spread * torch.randn(samples, generator=generator, dtype=torch.float64)).to(dtype)
        for alpha in NEAR_ONE:
            value, weights = limits(log_w.tolist(), alpha)
            objective, column = Objective(samples, alpha), log_w.clone().requires_grad_()
            found = objective.bound(column)
            (slopes,) = torch.autograd.grad(found, column)
            expected = torch.tensor(weights, dtype=torch.float64)
            assert abs(found.item() - value) <= 4 * eps * float(log_w.abs().max()), (samples, alpha)
            for mine in (slopes, objective.weights(log_w)):
                assert mine.dtype == dtype and float((mine.double() - expected).abs().max()) <= 16 * eps, (
                    samples,
                    alpha,
                )


def test_the_audits_example_near_the_elbo():
    log_w = torch.tensor([-100.0, -101.5, -99.2, -102.1, -101.54], dtype=torch.float32)
    for alpha in (1 - 1e-7, 1 - 1e-10, 1.0):
        assert Objective(5, alpha).bound(log_w).item() == pytest.approx(-100.868, abs=2e-5)
