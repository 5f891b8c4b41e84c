"""Black-box variational inference against the exact gradient: Bayesian linear regression, and a Poisson count.

SGD with gamma_n = C / sqrt(n) from the prior, 16 seeds, 200 steps, K = 4 draws; f and its gradient in closed form.
(C-u) is given the smoothness and the noise measured on the run.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import grad

from tests.convergence.findings import not_negative, vector_mean_is
from tests.convergence.recording import Conditional, flat, measure, record
from vaebench.data import diabetes
from vaebench.gates import Verdict
from vaebench.gradients.estimators import doubly_reparameterized, leave_one_out, pathwise
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.models import GaussianRegression, MeanFieldModel, PoissonRegression, mean_field
from vaebench.theory.problems import poisson, regression
from vaebench.training.optimizers import sgd
from vaebench.training.schedules import inverse_sqrt

ESTIMATORS = [pathwise, doubly_reparameterized, leave_one_out]
SEEDS, STEPS, SAMPLES = range(16), 200, 4


class Problem(NamedTuple):
    model: MeanFieldModel
    response: Tensor  # (1, n)
    function: Callable[[dict[str, Tensor]], Tensor]
    scale: float  # C


def diabetes_regression() -> Problem:
    """The diabetes study, 10 features, noise variance 10."""
    table = diabetes(dtype=torch.float64)
    design, response = table[:, :-1], table[:, -1]
    target = regression.regression(design, response, 10.0, 1.0)
    model = mean_field(GaussianRegression(design, 10.0))
    function = lambda p: regression.objective(regression.MeanField(p["model.mu"], p["model.w"]), target)
    return Problem(model, response.unsqueeze(0), function, 0.002)


def count() -> Problem:
    """y = 3 with rate e^z."""
    one = torch.ones(1, 1, dtype=torch.float64)
    function = lambda p: poisson.objective(regression.MeanField(p["model.mu"][0], p["model.w"][0]), 3)
    return Problem(mean_field(PoissonRegression(one)), 3 * one, function, 0.05)


@cache
def run(problem, estimator) -> Conditional:
    model, y, function, scale = problem()
    objective = Objective(SAMPLES)
    path = record(model, estimator, objective, y, sgd, inverse_sqrt(scale), STEPS, 1, SEEDS)
    return measure(path, function, Loss(model, estimator, objective), 1)


def envelope(problem, estimator) -> Verdict:
    found = run(problem, estimator)
    sides, product = found.sides(), problem().scale * found.smoothness
    ratio = float(sides.right[:, -1].mean() / sides.left[:, -1].mean())
    claim = "(C-u) bounds the exact squared gradient, given its constants"
    return not_negative(claim, sides.margin[:, -1], problem=problem.__name__, ratio=ratio, LC=product)


def gradient(problem, estimator) -> Verdict:
    """The first gradients of 4000 members of a fleet."""
    model, y, function, scale = problem()
    path = record(model, estimator, Objective(SAMPLES), y, sgd, inverse_sqrt(scale), 1, 1, range(4000))
    exact = flat(grad(function)(own_parameters(Loss(model, estimator, Objective(SAMPLES)))))
    claim = "training's gradients have the exact mean"
    return vector_mean_is(claim, path.gradients[0], exact, problem=problem.__name__)


@pytest.mark.parametrize("problem", [diabetes_regression, count])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.__name__)
@pytest.mark.parametrize("claim", [gradient, envelope], ids=lambda claim: claim.__name__)
def test_inference(claim, estimator, problem, verify):
    verify(lambda: claim(problem, estimator))


def own_sample_in_the_baseline(model, x, noise, objective):
    """Shrinks the expectation of the score function by 1 - 1/K."""
    q = model.posterior(x)
    z = q.transport(noise).detach()
    log_w = objective.log_weights(model, x, z, q)
    signal = (log_w - log_w.mean(0)).detach() / len(log_w)
    return (signal * q.log_prob(z)).sum(0)


def half(model, x, noise, objective):
    return pathwise(model, x, noise, objective) / 2


@pytest.mark.parametrize("problem", [diabetes_regression, count])
@pytest.mark.parametrize("fault", [own_sample_in_the_baseline, half])
def test_a_biased_gradient_is_refused(fault, problem):
    assert not gradient(problem, fault).passed


@pytest.mark.parametrize("problem", [diabetes_regression, count])
def test_half_the_gradient_leaves_the_envelope(problem):
    assert not envelope(problem, half).passed
