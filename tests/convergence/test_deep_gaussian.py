"""The deep Gaussian VAE, soft-clipped at s, against exact values and gradients: two latents, 9 nodes in each.

SGD with gamma_n = C / sqrt(n), 12 seeds, 250 steps, B = 8 of 12 examples. What is asserted holds given
smoothness and noise measured on the run, not proved; a violation means a biased gradient, other steps, or an
underestimated constant. The certified smoothness is recorded and never asserted with: with log-variances up to
20 it exceeds the curvature met by a factor of e^20 and more, and would require steps as many times smaller.
"""

from functools import cache

import pytest
import torch
from torch import nn
from torch.func import grad

from tests.convergence.findings import not_negative, within_ratio
from tests.convergence.recording import Conditional, Function, exact_by_rule, flat, measure, record
from vaebench.data import linear_gaussian
from vaebench.gates import Verdict
from vaebench.gradients.estimators import analytic_kl
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.models import deep_gaussian_vae
from vaebench.theory import constants, quadrature
from vaebench.training.optimizers import sgd
from vaebench.training.schedules import inverse_sqrt

SCALES = {1.0: 0.02, 5.0: 0.04}  # C, by the sharpness s
SEEDS, STEPS, BATCH = range(12), 250, 8


def problem(sharpness: float):
    data = linear_gaussian(12, 4, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    return deep_gaussian_vae((4,), (6,), 2, sharpness, generator=generator, dtype=torch.float64), data / data.std()


def exact_objective(sharpness: float, nodes: int = 9) -> Function:
    start, data = problem(sharpness)
    return exact_by_rule(start, Objective(), data, quadrature.gauss_hermite(nodes, 2))


@cache
def run(sharpness: float, kl: float = 1.0) -> Conditional:
    """A run, whose Kullback-Leibler weight is `kl` instead of one."""
    (start, data), objective = problem(sharpness), Objective(beta=kl)
    path = record(start, analytic_kl, objective, data, sgd, inverse_sqrt(SCALES[sharpness]), STEPS, BATCH, SEEDS)
    return measure(path, exact_objective(sharpness), Loss(start, analytic_kl, objective), BATCH)


def certified(sharpness: float) -> float:
    """The layerwise product bound, on twice the norms of the weights at the start."""
    start, data = problem(sharpness)

    def layers(net: nn.Module, ranges: list[tuple[float, float]], rows: slice = slice(None)):
        found = [module for module in net.modules() if isinstance(module, nn.Linear)]
        weights = [module.weight.detach() for module in found]
        weights[-1] = weights[-1][rows]
        norms = [2 * float(torch.linalg.matrix_norm(w, 2)) for w in weights]
        return [
            constants.Layer(norm, len(w), low, high, sharpness)
            for norm, w, (low, high) in zip(norms, weights, ranges, strict=True)
        ]

    hidden, mean, log_variance, output = (0.0, 50.0), (-50.0, 50.0), (-20.0, 20.0), (-50.0, 50.0)
    first = layers(start.encoder, [hidden, mean], slice(0, 2))
    model = constants.DeepGaussian(
        first[:1],
        first[1:],
        layers(start.encoder, [hidden, log_variance], slice(2, 4))[1:],
        layers(start.decoder, [hidden, output]),
        float(data.norm(dim=1).max()),
        1.0,
    )
    return float(constants.certified_smoothness(model))


def details(sharpness: float, found: Conditional) -> dict[str, float]:
    known = {"LC": SCALES[sharpness] * found.smoothness, "measured_smoothness": found.smoothness}
    return known | {"sharpness": sharpness, "certified_smoothness": certified(sharpness)}


def envelope(sharpness: float, found: Conditional) -> Verdict:
    claim = "(C-u) bounds the exact squared gradient, given smoothness and noise measured on the run"
    return not_negative(claim, found.sides().margin[:, -1], **details(sharpness, found))


def envelope_is_tight(sharpness: float, found: Conditional) -> Verdict:
    claim = "(C-u) with measured constants is within 1.5 of what it bounds"
    return within_ratio(claim, found.sides(), 1.5, **details(sharpness, found))


@pytest.mark.parametrize("sharpness", SCALES)
@pytest.mark.parametrize("claim", [envelope, envelope_is_tight], ids=lambda claim: claim.__name__)
def test_deep_gaussian(claim, sharpness, verify):
    verify(lambda: claim(sharpness, run(sharpness)))


@pytest.mark.parametrize("sharpness", SCALES)
def test_the_quadrature_has_converged(sharpness):
    fine, coarse = (exact_objective(sharpness, nodes) for nodes in (31, 9))
    parameters = own_parameters(Loss(problem(sharpness)[0], analytic_kl, Objective()))
    exact, found = flat(grad(fine)(parameters)), flat(grad(coarse)(parameters))
    assert (exact - found).norm() < 2e-3 * exact.norm()


def test_no_kullback_leibler_term_leaves_the_envelope():
    assert not envelope(1.0, run(1.0, kl=0.0)).passed


def test_the_certified_constant_is_vacuous():
    found = run(5.0)._replace(smoothness=certified(5.0))
    assert not envelope_is_tight(5.0, found).passed
