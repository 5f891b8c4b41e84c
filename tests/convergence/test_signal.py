"""How signal and noise of the gradient scale with the number of samples K and the batch size B.

A linear VAE a little off its optimum (0.015), where importance weights are light and the laws in K, which are
asymptotic, hold from K = 8 on. Slopes are of log-log least squares over K = 8 .. 128; errors are propagated from
jackknife ones; 0.06 is allowed for what is left of the asymptotics.
"""

from functools import cache

import numpy as np
import pytest
import torch

from tests.convergence.findings import number_is
from tests.convergence.test_sgd import problem
from vaebench.gates import Verdict
from vaebench.gradients.estimators import analytic_kl, doubly_reparameterized, pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.measures.moments import conditional, fresh, gradient_moments, nested, parameter_groups
from vaebench.measures.probes import gradient_split, gradient_variance, snr
from vaebench.models import LinearVAE
from vaebench.support.statistics import Estimate
from vaebench.theory import predictions
from vaebench.theory.problems import linear, linear_noise

COUNTS, REPLICATES = [8, 32, 128], 1000
BATCHES = [4, 16, 64]
BIAS = 0.06


def model() -> LinearVAE:
    bed, generator = problem(1.0), torch.Generator().manual_seed(2)
    best, _ = linear.optimum(bed.scatter, 2, bed.noise_variance, 1.0)
    off = [b + 0.015 * torch.randn(b.shape, generator=generator, dtype=b.dtype) for b in best]
    return LinearVAE(*off, bed.noise_variance)


def tied(estimator):
    """The same noise for every sample."""
    return lambda model, x, noise, objective: estimator(model, x, noise[:1].expand_as(noise), objective)


def shared(estimator):
    """The same noise for every example."""
    return lambda model, x, noise, objective: estimator(model, x, noise[:, :1].expand_as(noise), objective)


@cache
def moments(estimator, alpha: float, samples: int):
    """Given a batch of 4: fresh noise only."""
    x = problem(1.0).data[:4]
    loss = Loss(model(), estimator, Objective(samples, alpha))
    draws = conditional(loss, x, torch.Generator().manual_seed(samples))
    return gradient_moments(loss, draws, REPLICATES, groups=50)


def names(block: str):
    loss = Loss(model(), pathwise, Objective())
    return parameter_groups(loss, problem(1.0).data)["phi" if block == "encoder" else "theta"]


def slope(counts, estimates: list[Estimate]) -> Estimate:
    values, errors = np.array(estimates).T
    centred = np.log(counts) - np.log(counts).mean()
    weights = centred / (centred @ centred)
    return Estimate(float(weights @ np.log(values)), float(np.sqrt(((weights * errors / values) ** 2).sum())))


def snr_slope(estimator, block: str, alpha: float = 0.0, fault=None) -> Verdict:
    """The signal is that of the doubly reparameterized gradient: the same expectation, less noise."""
    found = [
        snr(moments(doubly_reparameterized, alpha, k), moments(fault or estimator, alpha, k), names(block))
        for k in COUNTS
    ]
    law = predictions.importance_exponents(estimator.__name__, block, alpha).snr
    claim = f"the signal-to-noise ratio of the {block}'s gradient grows like K^{law:+g}"
    estimator_name = estimator.__name__
    return number_is(claim, REPLICATES, *slope(COUNTS, found), law, BIAS, alpha=alpha, estimator=estimator_name)


def variance_slope(estimator, block: str, alpha: float = 0.0, fault=None) -> Verdict:
    found = [gradient_variance(moments(fault or estimator, alpha, k), names(block)) for k in COUNTS]
    law = predictions.importance_exponents(estimator.__name__, block, alpha).variance
    claim = f"the variance of the {block}'s gradient falls like K^{law:g}, given the batch"
    estimator_name = estimator.__name__
    return number_is(claim, REPLICATES, *slope(COUNTS, found), law, BIAS, alpha=alpha, estimator=estimator_name)


def batch_slope(estimator) -> Verdict:
    """Fresh minibatches and noise."""
    found = []
    for size in BATCHES:
        loss = Loss(model(), estimator, Objective())
        draws = fresh(loss, problem(1.0).data, size, torch.Generator().manual_seed(size))
        found.append(gradient_variance(gradient_moments(loss, draws, REPLICATES, groups=50)))
    return number_is("the variance falls like 1/B", REPLICATES, *slope(BATCHES, found), -1.0, 0.0)


def exact_split():
    bed = problem(1.0)
    blocks = linear.LinearParameters(*(p.detach() for p in model().parameters()))
    return linear_noise.gradient_covariance(blocks, bed.data, bed.noise_variance)


def split(part: str, samples: int = 4, claimed: int = 4) -> Verdict:
    """Data / B + latent / (B K) in closed form against nested replicates: 500 minibatches of 8, 2 draws each."""
    loss = Loss(model(), analytic_kl, Objective(samples))
    draws = nested(loss, problem(1.0).data, 8, 2, torch.Generator().manual_seed(5))
    found = gradient_split(gradient_moments(loss, draws, 1000, groups=500))
    law = {"data": exact_split().data.trace() / 8, "latent": exact_split().latent.trace() / (8 * claimed)}
    return number_is(
        f"the {part} part of the variance is the exact one", 500, *getattr(found, part), float(law[part]), 0
    )


SNR = [
    (pathwise, "decoder", 0.0),
    (pathwise, "encoder", 0.0),
    (doubly_reparameterized, "encoder", 0.0),
    (doubly_reparameterized, "encoder", 0.5),
    (pathwise, "encoder", 0.5),
]


@pytest.mark.parametrize(("estimator", "block", "alpha"), SNR)
def test_snr(estimator, block, alpha, verify):
    verify(lambda: snr_slope(estimator, block, alpha))


@pytest.mark.parametrize(
    ("estimator", "block"), [(pathwise, "decoder"), (pathwise, "encoder"), (doubly_reparameterized, "encoder")]
)
def test_variance_in_samples(estimator, block, verify):
    verify(lambda: variance_slope(estimator, block))


def test_variance_in_the_batch(verify):
    verify(lambda: batch_slope(analytic_kl))


@pytest.mark.parametrize("part", ["data", "latent"])
def test_split(part, verify):
    verify(lambda: split(part))


def test_one_noise_for_all_samples_is_refused():
    assert not snr_slope(pathwise, "decoder", fault=tied(pathwise)).passed
    assert not variance_slope(pathwise, "encoder", fault=tied(pathwise)).passed


def test_the_law_of_another_estimator_is_refused():
    assert not snr_slope(pathwise, "encoder", fault=doubly_reparameterized).passed
    assert not snr_slope(doubly_reparameterized, "encoder", fault=pathwise).passed
    assert not variance_slope(doubly_reparameterized, "encoder", fault=pathwise).passed


def test_one_noise_for_the_whole_batch_is_refused():
    assert not batch_slope(shared(analytic_kl)).passed


def test_a_split_with_another_number_of_samples_is_refused():
    assert not split("latent", samples=2).passed


def test_samples_do_not_lower_the_part_of_the_data():
    """The law 1/(B K) for the whole variance, often written, is refused."""
    found = split("data")
    assert abs(found.evidence["estimate"] - found.evidence["value"] / 4) > found.threshold
