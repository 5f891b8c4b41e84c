"""Probes of what theory needs along a path: curvature, and the parts of the gradient's variance."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp

from vaebench.experiments.probes.measuring import Probe, Setting, each_member
from vaebench.gradients.estimators import ESTIMATORS, pathwise
from vaebench.gradients.loss import Loss, Parameters, loss_function
from vaebench.measures.moments import fresh, gradient_moments, nested
from vaebench.measures.probes import Estimate, gradient_split, top_curvature
from vaebench.training.records import State

CURVATURE_STRIDE = 3  # every third checkpoint has its largest eigenvalue and its variance's parts computed
DRAWS = 16  # of g'Hg
SPLIT = ("pathwise", "analytic_kl", "doubly_reparameterized")  # those whose latent part falls like 1 / (B K)
GROUPS = 16  # minibatches for the parts of the variance, each with two draws


def curvature(setting: Setting) -> dict[str, Probe]:
    """Hessian of the loss on fresh rows: its largest eigenvalue, and g'Hg for training gradients g."""
    measures, known, smooth = setting.experiment.measures, setting.training(), setting.loss(pathwise)
    chosen = {*setting.marks[::CURVATURE_STRIDE], setting.marks[-1]}

    def on_rows(generator: torch.Generator) -> Callable[[Parameters], Tensor]:
        x, noise = fresh(known.loss, known, measures.rows, generator).take(1)
        return lambda parameters: loss_function(smooth)(parameters, x[0], noise[0])

    def largest(state: State) -> Tensor:
        if state.step not in chosen:
            return torch.full((len(state.seeds),), math.nan, dtype=torch.float64)
        return each_member(
            state, lambda parameters, generator: top_curvature(on_rows(generator), parameters, tolerance=1e-2)
        )

    def along(state: State) -> Tensor:
        def measure(parameters: Parameters, generator: torch.Generator) -> Estimate:
            draws = fresh(known.loss, known, setting.experiment.batch_size, generator)
            found = torch.stack(
                [_quadratic(on_rows(generator), known.loss, parameters, draws.take(1)) for _ in range(DRAWS)]
            ).double()
            return Estimate(float(found.mean()), float(found.std() / len(found) ** 0.5))

        return each_member(state, measure)

    return {"top_curvature": largest, "gradient_curvature": along}


def _quadratic(
    function: Callable[[Parameters], Tensor], loss: Loss, parameters: Parameters, drawn: tuple[Tensor, Tensor]
) -> Tensor:
    x, noise = drawn
    g = grad(loss_function(loss))(parameters, x[0], noise[0])
    product = jvp(grad(function), (dict(parameters),), (g,))[1]
    return torch.stack([(g[name] * product[name]).sum() for name in g]).sum()


def variance_split(setting: Setting) -> dict[str, Probe]:
    """sigma^2_data and sigma^2_latent of one example and one sample, for estimators of the ELBO."""
    experiment = setting.experiment
    size, samples, chosen = experiment.measures.rows, experiment.objective.samples, {*setting.marks[::CURVATURE_STRIDE]}

    def split(name: str) -> Probe:
        known = setting.training(ESTIMATORS[name])

        def measure(parameters: Parameters, generator: torch.Generator) -> list[float]:
            draws = nested(known.loss, known, size, 2, generator)
            found = gradient_split(gradient_moments(known.loss, draws, 2 * GROUPS, parameters, GROUPS))
            return [found.data.value * size, found.latent.value * size * samples]

        def probe(state: State) -> Tensor:
            if state.step not in chosen:
                return torch.full((len(state.seeds), 2), math.nan, dtype=torch.float64)
            return each_member(state, measure)

        return probe

    kept: dict[str, Tensor] = {}
    whole = {name: split(name) for name in SPLIT}

    def part(name: str, number: int) -> Probe:
        def probe(state: State) -> Tensor:
            if number == 0:
                kept[name] = whole[name](state)
            return kept[name][:, number]

        return probe

    parts = ("data", "latent")
    return {f"{part_name}_{name}": part(name, i) for name in SPLIT for i, part_name in enumerate(parts)}
