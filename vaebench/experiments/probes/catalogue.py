"""What an experiment measures at its checkpoints, by name.

Rows of the training set on which a bound is evaluated are the seed's own and stay the same along the run: the band
over seeds then covers the choice of rows, and differences along the run do not suffer from it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vaebench.experiments.probes.landscape import curvature, variance_split
from vaebench.experiments.probes.measuring import Probe, Setting, each_member
from vaebench.gradients.estimators import Estimator, doubly_reparameterized, pathwise
from vaebench.gradients.loss import Parameters, Tried
from vaebench.gradients.trial import tried
from vaebench.measures.likelihood import bound, log_likelihood
from vaebench.measures.moments import Moments, fresh, gradient_moments, parameter_groups
from vaebench.measures.probes import Estimate, grad_sq, gradient_variance, snr
from vaebench.models import as_input
from vaebench.support.registry import UnknownNameError, nearest
from vaebench.support.texts import shown
from vaebench.training.records import State

DECODED = 4096  # rows of a bound's evaluation that are decoded at once


def probes_of(setting: Setting) -> dict[str, Probe]:
    """The probes of an experiment, by the name of their column; a name that is not known is refused."""
    require_probes(setting.experiment.probes)
    found: dict[str, Probe] = {}
    for name in setting.experiment.probes:
        found |= PROBES[name](setting)
    return found


def require_probes(names: Sequence[str]) -> None:
    """Refuse a name that no probe has."""
    for name in names:
        if name not in PROBES:
            raise UnknownNameError(f"There is no probe {shown(name)}{nearest(name, PROBES)}")


def _moments(setting: Setting, estimator: Estimator | None = None) -> Callable[..., Moments]:
    measures, known = setting.experiment.measures, setting.training(estimator)

    def gather(parameters: Parameters, generator: torch.Generator) -> Moments:
        draws = fresh(known.loss, known, measures.rows, generator)
        return gradient_moments(known.loss, draws, measures.replicates, parameters)

    return gather


def _gradient(setting: Setting) -> dict[str, Probe]:
    """|grad f|^2, unbiased, and the variance of a training gradient, from the same replicates."""
    scale = setting.experiment.measures.rows / setting.experiment.batch_size
    kept: dict[int, list[Moments]] = {}
    gather = _moments(setting)

    def square(state: State) -> Tensor:
        kept.clear()
        kept[state.step] = []

        def measure(parameters: Parameters, generator: torch.Generator) -> Estimate:
            kept[state.step].append(gather(parameters, generator))
            return grad_sq(kept[state.step][-1])

        return each_member(state, measure)

    def variance(state: State) -> Tensor:
        gathered = iter(kept[state.step])
        found = each_member(state, lambda *_: gradient_variance(next(gathered)))
        return found * scale

    return {"grad_sq": square, "grad_variance": variance}


def _encoder_snr(setting: Setting) -> dict[str, Probe]:
    """The encoder's signal-to-noise ratio; its signal from the doubly reparameterized gradient."""
    names = parameter_groups(setting.loss(), _rows(setting.problem.train[:1], setting))["phi"]
    scale = math.sqrt(setting.experiment.batch_size / setting.experiment.measures.rows)
    own, quiet = _moments(setting), _moments(setting, doubly_reparameterized)

    def measure(state: State) -> Tensor:
        found = each_member(
            state, lambda parameters, generator: snr(quiet(parameters, generator), own(parameters, generator), names)
        )
        return found * scale

    return {"encoder_snr": measure}


def _rows(rows: Tensor, setting: Setting) -> Tensor:
    return as_input(rows, next(setting.problem.models[0].parameters()))


def _choose(known: Tried, count: int, generator: torch.Generator) -> Tried:
    data = known.data
    if count >= len(data):
        return known
    chosen = torch.randperm(len(data), generator=generator, device=generator.device)[:count]
    return known.rows(chosen.to(data.device))


def _bounds(setting: Setting) -> dict[str, Probe]:
    """The negative bound on rows of the training set and of the test set, two draws of each."""
    data, count = {"train": setting.problem.train, "test": setting.problem.test}, setting.experiment.measures.bound_rows
    loss = setting.loss(pathwise)

    def measure(rows: Tried, state: State) -> Tensor:
        def one(parameters: Parameters, generator: torch.Generator) -> Estimate:
            chosen, at_once = _choose(rows, count, generator), max(1, DECODED // loss.objective.samples)
            value = bound(loss, chosen, 2, generator, parameters, at_once)
            return Estimate(-value.value, value.error)

        return each_member(state, one, fixed=True)

    known = {name: tried(loss, rows) for name, rows in data.items() if rows is not None}
    return {f"bound_{name}": partial(measure, rows) for name, rows in known.items()}


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
        return each_member(state, lambda where, generator: log_likelihood(state.loss, rows, count, generator, where))

    return {"log_likelihood": measure}


PROBES: dict[str, Callable[[Setting], dict[str, Probe]]] = {
    "gradient": _gradient,
    "encoder_snr": _encoder_snr,
    "bounds": _bounds,
    "curvature": curvature,
    "variance_split": variance_split,
    "largest_parameter": _largest_parameter,
    "log_likelihood": _log_likelihood,
}
