"""What an experiment measures at its checkpoints, by name.

Every number is drawn from generators of (seed, step) or of the seed alone, so that a run that was interrupted
measures the same. Rows of the training set on which a bound is evaluated are the seed's own and stay the same along
the run: the band over seeds then covers the choice of rows, and differences along the run do not suffer from it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jvp

from vaebench.estimators import ESTIMATORS, Loss, doubly_reparameterized, pathwise
from vaebench.experiments.building import Problem
from vaebench.experiments.experiment import Experiment
from vaebench.likelihood import log_likelihood
from vaebench.models import as_input
from vaebench.moments import Moments, Parameters, fresh, gradient_moments, loss_function, nested, parameter_groups
from vaebench.probes import Estimate, bound, grad_sq, gradient_split, gradient_variance, snr, top_curvature
from vaebench.records import State

Probe = Callable[[State], Tensor]
CURVATURES = 3  # every third checkpoint has its largest eigenvalue computed
CURVATURE_DRAWS = 16
SPLIT = ("pathwise", "analytic_kl", "doubly_reparameterized")  # those whose latent part falls like 1 / (B K)
SPLITS, SPLIT_GROUPS = 3, 16  # every third checkpoint; minibatches, each with two draws
DECODED = 4096  # rows of a bound's evaluation that are decoded at once


class Setting(NamedTuple):
    """What probes are made from."""

    experiment: Experiment
    problem: Problem
    marks: Sequence[int]


def probes_of(setting: Setting) -> dict[str, Probe]:
    """The probes of an experiment, by the name of their column.

    Args:
        setting: the experiment, its problem and its checkpoints.

    Returns:
        The probes.

    Raises:
        ValueError: if a name is not known.
    """
    found: dict[str, Probe] = {}
    for name in setting.experiment.probes:
        if name not in PROBES:
            raise ValueError(f"There is no probe {name!r}; known: {', '.join(PROBES)}.")
        found |= PROBES[name](setting)
    return found


def _each(state: State, measure: Callable[[Parameters, torch.Generator], object], fixed: bool = False) -> Tensor:
    """One measurement per member, with a generator of its seed and, unless `fixed`, of the step."""

    def seeded(parameters: Parameters, seed: int) -> object:
        mixed = (seed * 1_000_003 + (0 if fixed else state.step + 1)) % 2**40
        return measure(parameters, torch.Generator(device=state.like.device).manual_seed(2**41 + mixed))

    return state.each_seed(seeded)


def _moments(setting: Setting, state: State, estimator: object = None) -> Callable[..., Moments]:
    measures = setting.experiment.measures

    def gather(parameters: Parameters, generator: torch.Generator) -> Moments:
        loss = state.loss if estimator is None else Loss(state.loss.model, estimator, state.loss.objective)  # pyright: ignore[reportArgumentType]
        return gradient_moments(
            loss, fresh(loss, state.data, measures.rows, generator), measures.replicates, parameters
        )

    return gather


def _gradient(setting: Setting) -> dict[str, Probe]:
    """|grad f|^2, unbiased, and the variance of a training gradient, from the same replicates."""
    scale = setting.experiment.measures.rows / setting.experiment.batch_size
    kept: dict[int, list[Moments]] = {}

    def square(state: State) -> Tensor:
        kept.clear()
        kept[state.step] = []
        gather = _moments(setting, state)

        def measure(parameters: Parameters, generator: torch.Generator) -> Estimate:
            kept[state.step].append(gather(parameters, generator))
            return grad_sq(kept[state.step][-1])

        return _each(state, measure)

    def variance(state: State) -> Tensor:
        gathered = iter(kept[state.step])
        found = _each(state, lambda *_: gradient_variance(next(gathered)))
        return found * scale

    return {"grad_sq": square, "grad_variance": variance}


def _encoder_snr(setting: Setting) -> dict[str, Probe]:
    """The encoder's signal-to-noise ratio; its signal from the doubly reparameterized gradient."""
    names = parameter_groups(setting.problem.loss(setting.experiment), _rows(setting.problem.train[:1], setting))["phi"]
    scale = math.sqrt(setting.experiment.batch_size / setting.experiment.measures.rows)

    def measure(state: State) -> Tensor:
        own, quiet = _moments(setting, state), _moments(setting, state, doubly_reparameterized)
        found = _each(
            state, lambda parameters, generator: snr(quiet(parameters, generator), own(parameters, generator), names)
        )
        return found * scale

    return {"encoder_snr": measure}


def _rows(rows: Tensor, setting: Setting) -> Tensor:
    return as_input(rows, next(setting.problem.models[0].parameters()))


def _choose(data: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if count >= len(data):
        return data
    chosen = torch.randperm(len(data), generator=generator, device=generator.device)[:count]
    return data[chosen.to(data.device)]


def _bounds(setting: Setting) -> dict[str, Probe]:
    """The negative bound on rows of the training set and of the test set, two draws of each."""
    data, count = {"train": setting.problem.train, "test": setting.problem.test}, setting.experiment.measures.bound_rows

    def measure(rows: Tensor, state: State) -> Tensor:
        def one(parameters: Parameters, generator: torch.Generator) -> Estimate:
            chosen, at_once = _choose(rows, count, generator), max(1, DECODED // state.loss.objective.samples)
            value = bound(state.loss, chosen, 2, generator, parameters, at_once)
            return Estimate(-value.value, value.error)

        return _each(state, one, fixed=True)

    return {f"bound_{name}": partial(measure, rows) for name, rows in data.items() if rows is not None}


def _curvature(setting: Setting) -> dict[str, Probe]:
    """Hessian of the loss on fresh rows: its largest eigenvalue, and g'Hg for training gradients g."""
    measures, marks = setting.experiment.measures, setting.marks
    chosen = set(marks[::CURVATURES]) | {marks[-1]}

    def on_rows(state: State, generator: torch.Generator) -> Callable[[Parameters], Tensor]:
        x, noise = fresh(state.loss, state.data, measures.rows, generator).take(1)
        smooth = Loss(state.loss.model, pathwise, state.loss.objective)
        return lambda parameters: loss_function(smooth)(parameters, x[0], noise[0])

    def largest(state: State) -> Tensor:
        if state.step not in chosen:
            return torch.full((len(state.seeds),), math.nan, dtype=torch.float64)
        return _each(
            state, lambda parameters, generator: top_curvature(on_rows(state, generator), parameters, tolerance=1e-2)
        )

    def along(state: State) -> Tensor:
        def measure(parameters: Parameters, generator: torch.Generator) -> Estimate:
            draws = fresh(state.loss, state.data, setting.experiment.batch_size, generator)
            found = torch.stack(
                [
                    _quadratic(on_rows(state, generator), state.loss, parameters, draws.take(1))
                    for _ in range(CURVATURE_DRAWS)
                ]
            ).double()
            return Estimate(float(found.mean()), float(found.std() / len(found) ** 0.5))

        return _each(state, measure)

    return {"top_curvature": largest, "gradient_curvature": along}


def _quadratic(
    function: Callable[[Parameters], Tensor], loss: Loss, parameters: Parameters, drawn: tuple[Tensor, Tensor]
) -> Tensor:
    x, noise = drawn
    g = grad(loss_function(loss))(parameters, x[0], noise[0])
    product = jvp(grad(function), (dict(parameters),), (g,))[1]
    return torch.stack([(g[name] * product[name]).sum() for name in g]).sum()


def _variance_split(setting: Setting) -> dict[str, Probe]:
    """sigma^2_data and sigma^2_latent of one example and one sample, for estimators of the ELBO."""
    experiment = setting.experiment
    size, samples, chosen = experiment.measures.rows, experiment.objective.samples, {*setting.marks[::SPLITS]}

    def split(name: str) -> Probe:
        def measure(parameters: Parameters, generator: torch.Generator, state: State) -> list[float]:
            loss = Loss(state.loss.model, ESTIMATORS[name], state.loss.objective)
            draws = nested(loss, state.data, size, 2, generator)
            found = gradient_split(gradient_moments(loss, draws, 2 * SPLIT_GROUPS, parameters, SPLIT_GROUPS))
            return [found.data.value * size, found.latent.value * size * samples]

        def probe(state: State) -> Tensor:
            if state.step not in chosen:
                return torch.full((len(state.seeds), 2), math.nan, dtype=torch.float64)
            return _each(state, lambda parameters, generator: measure(parameters, generator, state))

        return probe

    kept: dict[str, Tensor] = {}

    def part(name: str, number: int) -> Probe:
        def probe(state: State) -> Tensor:
            if number == 0:
                kept[name] = split(name)(state)
            return kept[name][:, number]

        return probe

    parts = ("data", "latent")
    return {f"{part_name}_{name}": part(name, i) for name in SPLIT for i, part_name in enumerate(parts)}


def _largest_parameter(setting: Setting) -> dict[str, Probe]:
    """a = max |parameter|, which the paper's assumptions bound and nothing enforces."""

    def measure(state: State) -> Tensor:
        return state.each(lambda parameters: torch.stack([p.abs().max() for p in parameters.values()]).max())

    return {"largest_parameter": measure}


def _log_likelihood(setting: Setting) -> dict[str, Probe]:
    """The IWAE estimate of the log-likelihood of test rows, at the last checkpoint only."""
    measures = setting.experiment.measures
    data = setting.problem.train if setting.problem.test is None else setting.problem.test
    rows = data[:: max(1, len(data) // measures.likelihood_rows)][: measures.likelihood_rows]

    def measure(state: State) -> Tensor:
        if state.step != setting.marks[-1]:
            return torch.full((len(state.seeds), 2), math.nan, dtype=torch.float64)
        count = measures.likelihood_samples
        return _each(state, lambda where, generator: log_likelihood(state.loss, rows, count, generator, where))

    return {"log_likelihood": measure}


PROBES: dict[str, Callable[[Setting], dict[str, Probe]]] = {
    "gradient": _gradient,
    "encoder_snr": _encoder_snr,
    "bounds": _bounds,
    "curvature": _curvature,
    "variance_split": _variance_split,
    "largest_parameter": _largest_parameter,
    "log_likelihood": _log_likelihood,
}
