"""What is trained: nets of the paper's kind on pictures that need no data set."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaebench.gradients.estimators import draw_noise, pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.models import conv_vae, mlp_vae
from vaebench.models.activations import soft_clip


def seeded(device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(20250503)


def images(shape: tuple[int, ...], device: str) -> Tensor:
    """Random binary images: speed does not depend on the picture."""
    return torch.rand(shape, generator=seeded()).round().to(device)


MODELS: dict[str, tuple[Callable[[str], Any], tuple[int, ...]]] = {
    "conv32": (lambda device: conv_vae(32, generator=seeded(), device=device), (3, 32, 32)),
    "conv32_soft_clip": (
        lambda device: conv_vae(32, activations=soft_clip(5.0), generator=seeded(), device=device),
        (3, 32, 32),
    ),
    "mlp": (lambda device: mlp_vae((28, 28), generator=seeded(), device=device), (28, 28)),
}


def problem(model: str, samples: int, batch: int, device: str) -> tuple[Loss, Tensor, Tensor]:
    """A loss, a batch and its noise."""
    make, event = MODELS[model]
    objective, x = Objective(samples), images((batch, *event), device)
    loss = Loss(make(device), pathwise, objective)
    return loss, x, draw_noise(loss.model, x, objective, seeded(device))
