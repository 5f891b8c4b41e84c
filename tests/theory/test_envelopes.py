"""Every SGD inequality on a run whose constants, gradients and noise are exact; each fails when it should."""

import math

import numpy as np
import pytest

from vaebench.theory import envelopes, series

SCALE = 0.03


def t_statistic(margin):
    """Mean over its standard error, 16 seeds: below -6 has probability 1.2e-5 at a true mean of zero."""
    return margin.mean() / (margin.std(ddof=1) / math.sqrt(len(margin)))


@pytest.fixture
def constants(record):
    """Sup over the path of L and sigma^2, a_0 and the largest gap."""
    gap = record.values.mean(0) - record.minimum
    return float(record.smoothness.max()), float(record.noise.max()), float(gap[0]), float(gap.max())


def mean_gradient(record):
    n = np.arange(1, len(record.steps) + 1)
    return np.cumsum(record.squared_gradients.mean(0)) / n


def test_a_telescoped_bound_is_tight_and_holds(record, constants):
    """The measured tightness of the per-step form at L C = 0.7 is 1.0 - 1.3."""
    smoothness, noise, *_ = constants
    sides = envelopes.uniform_telescoped(
        record.steps, record.squared_gradients, record.values, record.smoothness, record.noise
    )
    assert t_statistic(sides.margin[:, -1]) > -6
    assert 1.0 < sides.right[:, -1].mean() / sides.left[:, -1].mean() < 1.4
    looser = envelopes.uniform_telescoped(record.steps, record.squared_gradients, record.values, smoothness, noise)
    assert (looser.margin >= sides.margin).all()


def test_a_biased_gradient_violates_the_telescoped_bound(shrunk):
    """Half the gradient makes half the progress: the tight form sees it, the loose ones do not."""
    sides = envelopes.uniform_telescoped(
        shrunk.steps, shrunk.squared_gradients, shrunk.values, shrunk.smoothness, shrunk.noise
    )
    assert t_statistic(sides.margin[:, -1]) < -6
    gap = float((shrunk.values.mean(0) - shrunk.minimum).max())
    loose = envelopes.uniform_bounded(gap, SCALE, float(shrunk.smoothness.max()), float(shrunk.noise.max()), 400)
    assert (mean_gradient(shrunk) < loose).all()


def test_weighted_bounds_hold_in_order(record, constants):
    smoothness, noise, gap, _ = constants
    path = record.steps, record.squared_gradients, record.values, smoothness
    telescoped = envelopes.weighted(*path, noise)
    to_minimum = envelopes.weighted(*path, noise, record.minimum)
    per_step = envelopes.weighted(*path, record.noise)
    assert t_statistic(telescoped.margin[:, -1]) > 6
    assert (telescoped.right <= to_minimum.right).all()
    assert (per_step.right <= telescoped.right).all()
    by_gamma = envelopes.gamma_weighted(record.steps, record.squared_gradients, gap, smoothness, noise)
    ratios = [float((s.right / s.left.mean(0))[..., -1].mean()) for s in (telescoped, to_minimum, by_gamma)]
    assert 1 < ratios[0] < ratios[1] < ratios[2] < 3


def test_uniform_bounds_hold_at_every_horizon(record, constants):
    smoothness, noise, gap, largest = constants
    log = envelopes.uniform_log(gap, SCALE, smoothness, noise, 400)
    bounded = envelopes.uniform_bounded(largest, SCALE, smoothness, noise, 400)
    unbiased = envelopes.biased(largest, SCALE, smoothness, noise, 0.0, 400)
    for bound in (log, bounded, unbiased):
        assert (mean_gradient(record) < bound).all()
        assert bound[-1] / mean_gradient(record)[-1] < 40
    assert largest <= envelopes.largest_gap(gap, SCALE, smoothness, noise, 400)


def test_the_biased_bound_covers_the_biased_run(shrunk):
    """Halved: b = -grad/2 and a quarter of the noise. The bias term is what saves it at the start."""
    gap = float((shrunk.values.mean(0) - shrunk.minimum).max())
    bias = shrunk.squared_gradients.mean(0) / 4
    bound = envelopes.biased(gap, SCALE, float(shrunk.smoothness.max()), float(shrunk.noise.max()) / 4, bias, 400)
    assert (mean_gradient(shrunk) < bound).all()


def test_uniform_bounds_are_the_sums_they_abbreviate():
    """On sequences that satisfy the descent lemma with equality, term by term."""
    rng = np.random.default_rng(0)
    n, smoothness, noise, scale = 300, 2.0, 3.0, 0.3
    gamma = series.inverse_sqrt_steps(scale, n)
    gradients = rng.uniform(0.0, 0.4, n)
    falls = gamma * (1 - smoothness * gamma / 2) * gradients - smoothness / 2 * gamma**2 * noise
    gaps = np.concatenate([[0.0], -np.cumsum(falls)])
    gaps -= gaps.min()
    running = np.cumsum(gradients) / np.arange(1, n + 1)
    tight = envelopes.uniform_telescoped(gamma, gradients, gaps, smoothness, noise)
    assert np.allclose(tight.left, tight.right)
    equal = envelopes.weighted(gamma, gradients, gaps + 5.0, smoothness, noise)
    assert np.allclose(equal.left, equal.right)
    assert (running <= envelopes.uniform_log(gaps[0], scale, smoothness, noise, n)).all()
    bounded = envelopes.uniform_bounded(gaps.max(), scale, smoothness, noise, n)
    assert (running <= bounded).all()
    steps = np.arange(1, n + 1)
    closed = (gaps.max() / scale + smoothness * scale * noise) / (np.sqrt(steps) * (1 - smoothness * scale / 2))
    assert (bounded <= closed).all()


def test_rates_are_those_of_the_names():
    """Slope -1/2 without, above it with the logarithm."""
    log = envelopes.uniform_log(1.0, 0.1, 1.0, 1.0, 100_000)
    bounded = envelopes.uniform_bounded(1.0, 0.1, 1.0, 1.0, 100_000)
    assert math.log10(bounded[-1] / bounded[9_999]) == pytest.approx(-0.5, abs=0.002)
    assert math.log10(log[-1] / log[9_999]) > -0.497


@pytest.mark.parametrize(
    ("call", "limit"),
    [
        (lambda c: envelopes.uniform_log(1.0, c, 2.0, 1.0, 3), 1),
        (lambda c: envelopes.biased(1.0, c, 2.0, 1.0, 0.0, 3), 1),
        (lambda c: envelopes.uniform_bounded(1.0, c, 2.0, 1.0, 3), 2),
        (lambda c: envelopes.largest_gap(1.0, c, 2.0, 1.0, 3), 2),
        (lambda c: envelopes.weighted([c], [1.0], [1.0, 0.5], 2.0, 1.0), 2),
        (lambda c: envelopes.gamma_weighted([c], [1.0], 1.0, 2.0, 1.0), 2),
    ],
)
def test_too_large_steps_are_refused(call, limit):
    call(limit / 2 * 0.99)
    with pytest.raises(ValueError, match=rf"needs L C <= {limit}, but L = 2 and C = .* give L C = "):
        call(limit / 2 * 1.01)
    with pytest.raises(ValueError, match="nan"):
        call(math.nan)


def test_bounds_by_hand():
    """D = 2, C = 0.5, L = 1, sigma^2 = 3: two terms of each sum."""
    root = math.sqrt(2)
    sums = np.array([4 / 0.5 + 1.5, (4 * root / 0.5 + 1.5 * (1 + 1 / root)) / 2])
    assert np.allclose(envelopes.biased(2.0, 0.5, 1.0, 3.0, [0.2, 0.6], 2), sums + np.array([0.2, 0.4]))
    assert envelopes.largest_gap(2.0, 0.5, 1.0, 3.0, 2) == pytest.approx(2 + 0.5 * 3 * 0.25 * 1.5)
