"""Adam's envelopes on a problem with bounded gradients; their numbers; what they refuse."""

import math

import numpy as np
import pytest

from vaebench.theory import adam, series
from vaebench.theory.adam import AdamConstants

EPSILON = 1e-4


def run(seeds, steps, beta1, beta2, generator, dimension=3):
    """Adam in the bounds' convention on sum log cosh(x_j), noise +-1: |g| <= 2 and L = 1, from x = 2."""
    x = np.full((seeds, dimension), 2.0)
    m, v, squared, values = np.zeros_like(x), np.zeros_like(x), [], []
    for k, step in enumerate(steps, 1):
        gradient = np.tanh(x)
        squared.append((gradient**2).sum(-1).mean())
        values.append(np.log(np.cosh(x)).sum(-1).mean())
        g = gradient + generator.choice([-1.0, 1.0], size=x.shape)
        m, v = beta1 * m + g, beta2 * v + g * g
        rate = step * (1 - beta1) * math.sqrt((1 - beta2**k) / (1 - beta2))
        x = x - rate * m / np.sqrt(EPSILON + v)
    return np.array(squared), np.array(values)


def moments(beta1, beta2):
    return AdamConstants(beta1, beta2, EPSILON, 2 + math.sqrt(EPSILON), 3)


@pytest.mark.parametrize("beta1", [0.0, 0.5])
def test_the_constant_step_bound_holds(beta1):
    n = 1000
    squared, values = run(32, np.full(n, 0.01), beta1, 1 - 1 / n, np.random.default_rng(0))
    chance = 1 - beta1 ** np.arange(n, 0, -1)
    mean = (chance / chance.sum()) @ squared
    bound = adam.constant_step(values[0], 0.01, 1.0, moments(beta1, 1 - 1 / n), n)
    assert mean < bound
    assert bound < 1e4 * mean  # vacuous here, too: recorded, not relied upon


def test_the_decreasing_step_bound_holds_at_every_horizon():
    n = 1000
    squared, values = run(32, series.inverse_sqrt_steps(0.3, n), 0.0, 0.999, np.random.default_rng(0))
    bound = adam.decreasing_step(values.max(), 0.3, 1.0, moments(0.0, 0.999), n)
    assert (np.cumsum(squared) / np.arange(1, n + 1) < bound).all()


def test_momentum_costs_more_than_none_by_the_published_constants():
    """The constants of the general bound do not reduce to those without momentum: 12 against 4."""
    with_none = adam.constant_step(1.0, 1e-9, 1.0, AdamConstants(0.0, 0.999, 1e-8, 1.0, 1), 10**9)
    with_little = adam.constant_step(1.0, 1e-9, 1.0, AdamConstants(1e-12, 0.999, 1e-8, 1.0, 1), 10**9)
    noise = -math.log(0.999) / math.sqrt(0.001)
    assert with_little - with_none == pytest.approx(8 * noise, rel=1e-2)


@pytest.mark.parametrize(
    ("beta1", "beta2", "ratio"),
    [(0.0, 0.999, 0.127), (0.9, 0.999, 3.85), (0.9, 0.9999, 1.20), (0.9, 0.99999, 0.38)],
)
def test_floors_are_the_recorded_ones(beta1, beta2, ratio):
    """In units of d R^2, the trivial bound."""
    constants = AdamConstants(beta1, beta2, 1e-8, 3.0, 7)
    assert adam.floor(constants) / (7 * 9) == pytest.approx(ratio, rel=6e-3)


def test_the_floors_are_limits_of_the_bounds():
    constants = AdamConstants(0.0, 0.999, 1e-8, 1.0, 2)
    late = adam.decreasing_step(1.0, 1.0, 1e-3, constants, 1_000_000)[-1]
    assert late == pytest.approx(adam.floor(constants), rel=0.05)
    general = AdamConstants(0.9, 0.999, 1e-8, 1.0, 2)
    assert adam.constant_step(1.0, 1e-6, 1.0, general, 10**11) == pytest.approx(adam.floor(general), rel=0.01)


def test_senseless_constants_are_refused():
    with pytest.raises(ValueError, match=r"needs beta1 = 0, not beta1 = 0\.9"):
        adam.decreasing_step(1.0, 0.1, 1.0, moments(0.9, 0.999), 10)
    with pytest.raises(ValueError, match=r"beta1 < beta2 < 1, not beta1 = 0\.9, beta2 = 0\.5"):
        adam.floor(moments(0.9, 0.5))
    with pytest.raises(ValueError, match=r"too few for beta1 = 0\.9"):
        adam.constant_step(1.0, 0.1, 1.0, moments(0.9, 0.999), 9)


def test_bounds_without_momentum_are_attained_by_the_worst_sequence():
    """The descent lemma with equality, and sum u_k = d (A + lam k) for every k: nothing else enters."""
    constants, smoothness, gap, n = AdamConstants(0.0, 0.9, 1e-3, 2.0, 3), 7.0, 5.0, 50
    transient, decay = math.log(1 + 4 / (0.1 * 1e-3)), -math.log(0.9)
    largest = np.full(n, 3 * decay)
    largest[0] += 3 * transient
    for steps, bound in (
        (np.full(n, 0.1), adam.constant_step(gap, 0.1, smoothness, constants, n)),
        (series.inverse_sqrt_steps(0.1, n), adam.decreasing_step(gap, 0.1, smoothness, constants, n)[-1]),
    ):
        rise = (2 * 2.0 / math.sqrt(0.1) + smoothness * steps / (2 * 0.1)) * largest
        assert bound == pytest.approx(2 * 2.0 / n * (gap / steps[-1] + rise.sum()), rel=1e-12)


def test_the_bound_with_momentum_is_the_published_one():
    """Term by term at b1 = 1/2, b2 = 3/4, R = 2, d = 3, L = 7, alpha = 1/10, N = 101: 1 - b1/b2 = 1/3."""
    curvature = 0.1 * 3 * 2 * 7 * 0.5 * 3 * 4
    noise = 12 * 3 * 4 * math.sqrt(0.5) * math.sqrt(27) * 2
    square = 2 * 0.01 * 3 * 49 * 0.5 * 3 * 8
    transient, decay = math.log(1 + 4 / (0.25 * 1e-3)), math.log(4 / 3)
    expected = 2 * 2 * 5 / (0.1 * 100) + (curvature + noise + square) * (transient / 100 + 1.01 * decay)
    assert adam.constant_step(5.0, 0.1, 7.0, AdamConstants(0.5, 0.75, 1e-3, 2.0, 3), 101) == pytest.approx(expected)
