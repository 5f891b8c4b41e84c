"""What every probe of an experiment is made from, and drawn from.

Every number is drawn from generators of (seed, step) or of the seed alone, so that a run that was interrupted
measures the same.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.experiments.building import Problem
from vaebench.experiments.experiment import Experiment
from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, Parameters, Tried
from vaebench.gradients.trial import tried
from vaebench.support.seeding import derived_seed
from vaebench.training.records import State

Probe = Callable[[State], Tensor]


class Setting(NamedTuple):
    """What probes are made from."""

    experiment: Experiment
    problem: Problem
    marks: Sequence[int]

    def loss(self, estimator: Estimator | None = None) -> Loss:
        """The loss of the first member, or that of another estimator of the same bound."""
        own = self.problem.loss(self.experiment)
        return own if estimator is None else Loss(own.model, estimator, own.objective)

    def training(self, estimator: Estimator | None = None) -> Tried:
        """The training set, tried with that loss."""
        return tried(self.loss(estimator), self.problem.train)


def each_member(state: State, measure: Callable[[Parameters, torch.Generator], object], fixed: bool = False) -> Tensor:
    """One measurement per member, with a generator of its seed and, unless `fixed`, of the step."""

    def seeded(parameters: Parameters, seed: int) -> object:
        mixed = derived_seed(seed, "probe", 0 if fixed else state.step + 1)
        return measure(parameters, torch.Generator(device=state.like.device).manual_seed(mixed))

    return state.each_seed(seeded)
