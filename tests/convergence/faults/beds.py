"""The two problems on which faults are planted: 26 parameters with a closed form, 13 with a quadrature."""

from typing import Any

import torch
from torch import Tensor

from vaebench.gradients.estimators import analytic_kl, pathwise
from vaebench.gradients.objectives import Objective
from vaebench.models import LinearVAE
from vaebench.training.schedules import inverse_sqrt

SPREAD = (0.7, 0.5, 0.3, 0.25, 0.2, 0.15)


def problem(examples: int, latents: int) -> tuple[LinearVAE, Tensor]:
    """A linear VAE away from its optimum, d = 6, s = 0.5, on correlated, centred data."""
    g = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    mix = normal(6, 6) * torch.tensor(SPREAD, dtype=torch.float64)
    data = normal(examples, 6) @ mix.mT
    start = normal(6, latents) * 0.4, normal(latents, 6) * 0.3, normal(latents) * 0.5 - 0.5
    return LinearVAE(*start, 0.5), data - data.mean(0)


def elbo() -> dict[str, Any]:
    """What `run_gates` is given for a correct run on the ELBO."""
    model, data = problem(256, 2)
    shared = {"model": model, "data": data, "objective": Objective(), "batch_size": 8, "replicates": 2000}
    return shared | {"estimator": analytic_kl, "reported": analytic_kl, "schedule": inverse_sqrt(0.03), "steps": 600}


def iwae() -> dict[str, Any]:
    """The same for IWAE with K = 5."""
    model, data = problem(32, 1)
    shared = {"model": model, "data": data, "objective": Objective(5, alpha=0.0), "batch_size": 8, "replicates": 2000}
    return shared | {"estimator": pathwise, "reported": pathwise, "schedule": inverse_sqrt(0.03), "steps": 400}


BEDS = {"elbo": elbo, "iwae": iwae}
