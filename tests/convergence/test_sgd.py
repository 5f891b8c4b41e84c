"""SGD with gamma_n = C / sqrt(n) on the linear VAE: bounds that hold, bounds that are tight, and an identity.

16 seeds, 1000 steps, B = 8 of 64 examples; gradients by `analytic_kl`, everything else in closed form at every
step. Bounds are linear in what is recorded: the mean of right minus left is tested over seeds.
"""

from functools import cache

import numpy as np
import pytest
import torch

from tests.convergence.findings import finding, mean_is, not_negative, within_ratio
from tests.convergence.recording import Exact, Linear, examine, record
from vaebench.data import linear_gaussian
from vaebench.gates import Verdict
from vaebench.gradients.estimators import analytic_kl
from vaebench.gradients.objectives import Objective
from vaebench.models import linear_vae
from vaebench.theory import envelopes, predictions
from vaebench.theory.problems import linear
from vaebench.training.optimizers import sgd
from vaebench.training.schedules import inverse_sqrt

SCALES = {0.3: 0.035, 1.0: 0.03, 4.0: 0.022}  # C, for L C near 0.8
SEEDS, STEPS, BATCH = range(16), 1000, 8
START = 20250501


def problem(beta: float) -> Linear:
    data = linear_gaussian(64, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return Linear(data / data.std(), 0.5, beta)


@cache
def exact(beta: float, kl: float = 1.0) -> Exact:
    """A run, whose Kullback-Leibler weight is `kl` times what it should be."""
    start = linear_vae(generator=torch.Generator().manual_seed(START), dtype=torch.float64)
    bed, schedule = problem(beta), inverse_sqrt(SCALES[beta])
    path = record(start, analytic_kl, Objective(beta=kl * beta), bed.data, sgd, schedule, STEPS, BATCH, SEEDS)
    return examine(path, bed, BATCH)


def telescoped(run: Exact):
    return envelopes.uniform_telescoped(run.gamma, run.squared_gradients, run.values, run.smoothness, run.noise)


def uniform(beta: float, run: Exact) -> Verdict:
    sides = telescoped(run)
    return not_negative("(C-u) bounds the mean squared gradient", sides.margin[:, -1], beta=beta)


def uniform_is_tight(beta: float, run: Exact) -> Verdict:
    """Right over left at the end, at L C <= 0.85."""
    product = SCALES[beta] * float(run.smoothness.max())
    return within_ratio("(C-u) is within 1.3 of what it bounds", telescoped(run), 1.3, LC=product, beta=beta)


def weighted(beta: float, run: Exact) -> Verdict:
    smoothness, noise = float(run.smoothness.max()), float(run.noise.max())
    sides = envelopes.weighted(run.gamma, run.squared_gradients, run.values, smoothness, noise)
    ratio = float(sides.right[:, -1].mean() / sides.left[:, -1].mean())
    return not_negative("(A-w) bounds the weighted mean", sides.margin[:, -1], beta=beta, ratio=ratio)


def bounded(beta: float, run: Exact) -> Verdict:
    """At every horizon; the bound is loose, so that chance plays no part."""
    bed = problem(beta)
    minimum = float(linear.optimum(bed.scatter, 2, bed.noise_variance, beta)[1])
    gap = float((run.values.mean(0) - minimum).max())
    constants = SCALES[beta], float(run.smoothness.max()), float(run.noise.max())
    bound = envelopes.uniform_bounded(gap, *constants, STEPS)
    mean = np.cumsum(run.squared_gradients.mean(0)) / np.arange(1, STEPS + 1)
    worst = float((mean / bound).max())
    details = {"beta": beta, "at_the_end": float(mean[-1] / bound[-1])}
    return finding("(B-u) bounds the mean at every horizon", len(SEEDS), worst, 1.0, 1e-9, details)


def identity(beta: float, run: Exact) -> Verdict:
    """To second order in the steps."""
    law = predictions.mean_squared_gradient(run.gamma, run.values, run.curved_noise, run.curved_gradient)
    ratios = 1 + (law[:, -1] - run.squared_gradients.mean(-1)) / run.squared_gradients.mean()
    return mean_is("the second-order identity holds within 5 %", ratios, 1.0, 0.05, beta=beta, ratio=ratios.mean())


CLAIMS = [uniform, uniform_is_tight, weighted, bounded, identity]


@pytest.mark.parametrize("beta", SCALES)
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_sgd(claim, beta, verify):
    verify(lambda: claim(beta, exact(beta)))


@pytest.mark.parametrize("beta", SCALES)
def test_the_steps_are_as_large_as_the_claims_say(beta):
    assert 0.6 < SCALES[beta] * exact(beta).smoothness.max() <= 0.85


@pytest.mark.parametrize("claim", [uniform, weighted, bounded, identity], ids=lambda claim: claim.__name__)
def test_half_the_kullback_leibler_term_is_refused(claim):
    assert not claim(4.0, exact(4.0, kl=0.5)).passed


def test_a_certified_constant_is_not_tight():
    run = exact(4.0)
    ball = linear.smoothness_on_ball(2.0, 2.0, 2.0, 5.0, 0.5, 4.0)
    assert not uniform_is_tight(4.0, run._replace(smoothness=np.full_like(run.smoothness, ball))).passed
