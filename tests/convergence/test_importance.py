"""IWAE and VR-IWAE with K = 5 against the exact bound and its gradient, by quadrature: one latent dimension.

SGD with gamma_n = C / sqrt(n), 12 seeds, 200 steps, B = 4 of 6 examples. The gradient by quadrature errs by less
than 2e-4, the steps' own gradients being of order one.
"""

from functools import cache

import pytest
import torch
from torch.func import grad

from tests.convergence.findings import not_negative, number_is, vector_mean_is, within_ratio
from tests.convergence.recording import Conditional, Function, exact_by_rule, flat, measure, record
from vaebench.data import linear_gaussian
from vaebench.gates import Verdict
from vaebench.gradients.estimators import doubly_reparameterized, pathwise
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.measures.likelihood import bound
from vaebench.models import linear_vae
from vaebench.theory import quadrature
from vaebench.training.optimizers import sgd
from vaebench.training.schedules import inverse_sqrt

ALPHAS = [0.0, 0.5]
ESTIMATORS = [pathwise, doubly_reparameterized]
SEEDS, STEPS, BATCH, SCALE = range(12), 200, 4, 0.03


def problem(alpha: float):
    data = linear_gaussian(6, 3, 1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    start = linear_vae(3, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return start, Objective(5, alpha), data / data.std()


def exact_objective(alpha: float, nodes: int = 31, points: int = 80) -> Function:
    return exact_by_rule(*problem(alpha), quadrature.trapezoid(nodes, radius=6.0), points)


@cache
def run(alpha: float, estimator) -> Conditional:
    start, objective, data = problem(alpha)
    path = record(start, estimator, objective, data, sgd, inverse_sqrt(SCALE), STEPS, BATCH, SEEDS)
    return measure(path, exact_objective(alpha), Loss(start, estimator, objective), BATCH)


def envelope(alpha: float, estimator) -> Verdict:
    found = run(alpha, estimator)
    return not_negative(
        "(C-u) bounds the exact squared gradient, given its constants",
        found.sides().margin[:, -1],
        alpha=alpha,
        LC=SCALE * found.smoothness,
    )


def envelope_is_tight(alpha: float, estimator) -> Verdict:
    claim = "(C-u) with measured constants is within 1.5 of what it bounds"
    return within_ratio(claim, run(alpha, estimator).sides(), 1.5, alpha=alpha)


def gradient(alpha: float, estimator) -> Verdict:
    """The first gradients of 2000 members of a fleet: minibatch and noise of each are its own; 7 parameters."""
    start, objective, data = problem(alpha)
    path = record(start, estimator, objective, data, sgd, inverse_sqrt(SCALE), 1, BATCH, range(2000))
    exact = flat(grad(exact_objective(alpha, 121, 300))(own_parameters(Loss(start, estimator, objective))))
    return vector_mean_is("training's gradients have the exact mean", path.gradients[0], exact, alpha=alpha)


def value(alpha: float, samples: int = 5) -> Verdict:
    """At the start; 2000 draws of the noise of all data. `samples` should be 5."""
    start, objective, data = problem(alpha)
    estimate = bound(Loss(start, pathwise, objective), data, 2000, torch.Generator().manual_seed(4))
    exact = exact_by_rule(start, Objective(samples, alpha), data, quadrature.trapezoid(121, radius=6.0), 300)
    truth = -float(exact(own_parameters(Loss(start, pathwise, objective))))
    return number_is("the recorded bound is the exact one", 2000, *estimate, truth, 0.0, alpha=alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.__name__)
@pytest.mark.parametrize("claim", [gradient, envelope, envelope_is_tight], ids=lambda claim: claim.__name__)
def test_importance(claim, estimator, alpha, verify):
    verify(lambda: claim(alpha, estimator))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_value(alpha, verify):
    verify(lambda: value(alpha))


def test_the_quadrature_has_converged():
    fine, coarse = (exact_objective(0.0, *size) for size in [(241, 600), (31, 80)])
    start, objective, _ = problem(0.0)
    parameters = own_parameters(Loss(start, pathwise, objective))
    assert (flat(grad(fine)(parameters)) - flat(grad(coarse)(parameters))).abs().max() < 2e-4


def uniform_weights(model, x, noise, objective):
    q = model.posterior(x)
    return objective.log_weights(model, x, q.transport(noise), q).mean(0)


def half(model, x, noise, objective):
    return pathwise(model, x, noise, objective) / 2


def doubly_reparameterized_decoder(model, x, noise, objective):
    """The squared weights of the encoder's gradient, applied to the decoder as well."""
    q = model.posterior(x)
    log_w = objective.log_weights(model, x, q.transport(noise), q.detach())
    return (objective.weights(log_w.detach()).square() * log_w).sum(0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("fault", [uniform_weights, half, doubly_reparameterized_decoder])
def test_a_wrong_gradient_is_refused(fault, alpha):
    assert not gradient(alpha, fault).passed


def test_half_the_gradient_leaves_the_envelope():
    assert not envelope(0.0, half).passed


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_value_of_another_number_of_samples_is_refused(alpha):
    assert not value(alpha, samples=3).passed
