"""What is compared: estimators of one bound, on one net and real data, from the same starts and with the same noise."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.data import digits
from vaebench.gradients.estimators import ESTIMATORS
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.models import VAE, mlp_vae
from vaebench.training.schedules import Schedule, inverse_sqrt

BOUNDS = (Objective(1), Objective(5), Objective(5, 0.0), Objective(10, 0.0), Objective(50, 0.0))
SEEDS = (0, 1, 2, 3, 4)
BATCH = 32
SCHEDULE: Schedule = inverse_sqrt(0.01)  # of Adam


class Arm(NamedTuple):
    """A bound and an estimator of its gradient."""

    objective: Objective
    estimator: str

    @property
    def label(self) -> str:
        return f"{self.objective.name} {self.estimator}"

    def loss(self, model: VAE) -> Loss:
        return Loss(model, ESTIMATORS[self.estimator], self.objective)


def arms_of(objective: Objective) -> list[Arm]:
    """The estimators that a bound has."""
    names = ["pathwise", "doubly_reparameterized"]
    names += ["analytic_kl"] * (objective.alpha == 1) + ["leave_one_out"] * (objective.samples > 1)
    return [Arm(objective, name) for name in names]


def arms() -> Iterator[Arm]:
    """All of them, bound by bound."""
    for objective in BOUNDS:
        yield from arms_of(objective)


def net(seed: int) -> VAE:
    """The 64-50-50-8 perceptron, tanh and Bernoulli, where a seed starts."""
    return mlp_vae((8, 8), (50, 50), 8, generator=torch.Generator().manual_seed(seed))


def data() -> Tensor:
    """1,797 handwritten digits."""
    return digits()


def key(arm: Arm) -> dict[str, object]:
    """What a row must have in common with an arm to stand for it."""
    bound = {"bound": arm.objective.name, "estimator": arm.estimator}
    return bound | {"B": BATCH, "C": SCHEDULE.scale, "seeds": len(SEEDS), "torch": torch.__version__}
