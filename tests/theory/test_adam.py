"""Adam's envelopes on a problem with bounded gradients; their numbers; what they refuse."""

import math

import numpy as np
import pytest

from vaebench.theory import adam, series
from vaebench.theory.adam import Moments

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
    return Moments(beta1, beta2, EPSILON, 2 + math.sqrt(EPSILON), 3)


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
    with_none = adam.constant_step(1.0, 1e-9, 1.0, Moments(0.0, 0.999, 1e-8, 1.0, 1), 10**9)
    with_little = adam.constant_step(1.0, 1e-9, 1.0, Moments(1e-12, 0.999, 1e-8, 1.0, 1), 10**9)
    noise = -math.log(0.999) / math.sqrt(0.001)
    assert with_little - with_none == pytest.approx(8 * noise, rel=1e-2)


@pytest.mark.parametrize(
    ("beta1", "beta2", "ratio"),
    [(0.0, 0.999, 0.127), (0.9, 0.999, 3.85), (0.9, 0.9999, 1.20), (0.9, 0.99999, 0.38)],
)
def test_floors_are_the_recorded_ones(beta1, beta2, ratio):
    """In units of d R^2, the trivial bound."""
    constants = Moments(beta1, beta2, 1e-8, 3.0, 7)
    assert adam.floor(constants) / (7 * 9) == pytest.approx(ratio, rel=6e-3)


def test_the_floors_are_limits_of_the_bounds():
    constants = Moments(0.0, 0.999, 1e-8, 1.0, 2)
    late = adam.decreasing_step(1.0, 1.0, 1e-3, constants, 1_000_000)[-1]
    assert late == pytest.approx(adam.floor(constants), rel=0.05)
    general = Moments(0.9, 0.999, 1e-8, 1.0, 2)
    assert adam.constant_step(1.0, 1e-6, 1.0, general, 10**11) == pytest.approx(adam.floor(general), rel=0.01)


def test_senseless_constants_are_refused():
    with pytest.raises(ValueError, match=r"needs beta1 = 0, not beta1 = 0\.9"):
        adam.decreasing_step(1.0, 0.1, 1.0, moments(0.9, 0.999), 10)
    with pytest.raises(ValueError, match=r"beta1 < beta2 < 1, not beta1 = 0\.9, beta2 = 0\.5"):
        adam.floor(moments(0.9, 0.5))
    with pytest.raises(ValueError, match=r"too few for beta1 = 0\.9"):
        adam.constant_step(1.0, 0.1, 1.0, moments(0.9, 0.999), 9)
