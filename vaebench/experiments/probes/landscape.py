"""Probes of what theory needs along a path: curvature, and the parts of the gradient's variance."""

import math
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from vaebench.experiments.probes.measuring import Probe, Setting, each_member
from vaebench.gradients.estimators import ESTIMATORS, pathwise
from vaebench.gradients.loss import Parameters, loss_function
from vaebench.gradients.memory import Function
from vaebench.measures.moments import fresh, gradient_moments, nested
from vaebench.measures.probes import Estimate, gradient_split, top_curvature
from vaebench.training.records import State

CURVATURE_STRIDE = 3  # every third checkpoint has its largest eigenvalue and its variance's parts computed
DRAWS = 16  # of g'Hg
TOGETHER = 2**18  # numbers in the rows of those that are taken at once
SPLIT = ("pathwise", "analytic_kl", "doubly_reparameterized")  # those whose latent part falls like 1 / (B K)
GROUPS = 16  # minibatches for the parts of the variance, each with two draws


def curvature(setting: Setting) -> dict[str, Probe]:
    """Hessian of the loss on fresh rows: its largest eigenvalue, and g'Hg for training gradients g."""
    measures, known, smooth = setting.experiment.measures, setting.training(), setting.loss(pathwise)
    chosen = {*setting.marks[::CURVATURE_STRIDE], setting.marks[-1]}

    def rows(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, noise = fresh(known.loss, known, measures.rows, generator).take(1)
        return x[0], noise[0]

    def top(parameters: Parameters, generator: torch.Generator) -> float:
        x, noise = rows(generator)
        return top_curvature(lambda where: loss_function(smooth)(where, x, noise), parameters, tolerance=1e-2)

    def largest(state: State) -> Tensor:
        if state.step not in chosen:
            return torch.full((len(state.seeds),), math.nan, dtype=torch.float64)
        return each_member(state, top)

    def along(parameters: Parameters, generator: torch.Generator) -> Estimate:
        draws = fresh(known.loss, known, setting.experiment.batch_size, generator)
        drawn = [(*rows(generator), *(part[0] for part in draws.take(1))) for _ in range(DRAWS)]
        stacked = [torch.stack(part) for part in zip(*drawn, strict=True)]
        one = partial(_quadratic, loss_function(smooth), loss_function(known.loss), dict(parameters))
        found = vmap(one, chunk_size=max(1, TOGETHER // stacked[0][0].numel()))(*stacked).double()
        return Estimate(float(found.mean()), float(found.std() / len(found) ** 0.5))

    return {"top_curvature": largest, "gradient_curvature": lambda state: each_member(state, along)}


def _quadratic(
    smooth: Function, function: Function, at: Parameters, rows: Tensor, noise: Tensor, x: Tensor, own_noise: Tensor
) -> Tensor:
    """g'Hg, H the Hessian of a smooth loss on rows and noise, and g the gradient of another on x and its own."""
    g = grad(function)(at, x, own_noise)
    product = jvp(grad(lambda where: smooth(where, rows, noise)), (at,), (g,))[1]
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
