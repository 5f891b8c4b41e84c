"""Forward pass, backward pass and training step of each model, pathwise ELBO, one sample."""

from typing import Any

import torch

from benchmarks.common import DEVICES, batch, conv, generator, mlp, part, require_device, wall_clock

BATCH = 32


def linear(device: str) -> tuple[Any, torch.Tensor]:
    data = part("data").linear_gaussian(generator=generator(), device=device)
    return part("models").linear_vae(generator=generator(), device=device), data


def deep_gaussian(device: str) -> tuple[Any, torch.Tensor]:
    model = part("models").deep_gaussian_vae((8, 8), generator=generator(), device=device)
    return model, part("data").digits(device=device)


def mean_field(device: str) -> tuple[Any, torch.Tensor]:
    models, table = part("models"), part("data").diabetes(device=device)
    target = models.GaussianRegression(table[:, :-1], 0.5)
    return models.mean_field(target, device), table[:, -1].expand(BATCH, -1)


PROBLEMS = {
    "linear": linear,
    "mean_field": mean_field,
    "deep_gaussian": deep_gaussian,
    "mlp": mlp,
    "conv32": lambda device: conv(32, device),
    "conv32_soft_clip": lambda device: conv(32, device, sharpness=5.0),
    "conv64": lambda device: conv(64, device),
}


class Model:
    """One example of each family, 32 data a batch."""

    version = "1"
    param_names = ("model", "device")
    params = (list(PROBLEMS), DEVICES)
    timeout = 300
    rounds = 1
    repeat = (3, 5, 0.5)
    warmup_time = 0.1
    key: tuple[str, str] | None = None

    def setup(self, model: str, device: str) -> None:
        require_device(device)
        if self.key == (model, device):
            return
        self.key = (model, device)
        self.timer = wall_clock(device)
        estimators, objective = part("gradients.estimators"), part("gradients.objectives").Objective()
        self.model, data = PROBLEMS[model](device)
        self.x = batch(data, BATCH)
        self.noise = estimators.draw_noise(self.model, self.x, objective, generator(device))
        self.loss = part("gradients.loss").Loss(self.model, estimators.pathwise, objective)
        self.parameters = list(self.model.parameters())
        self.optimizer = part("training.optimizers").adam(self.parameters, lr=1e-4)
        self.graph = self.loss(self.x, self.noise)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.x, self.noise).backward()
        self.optimizer.step()

    def time_forward(self, *_: object) -> None:
        self.loss(self.x, self.noise)

    def time_backward(self, *_: object) -> None:
        torch.autograd.grad(self.graph, self.parameters, retain_graph=True)

    def time_step(self, *_: object) -> None:
        self.step()

    def track_flops(self, *_: object) -> int:
        return part("measures.cost").count(self.step).flops

    def track_ops(self, *_: object) -> int:
        return part("measures.cost").count(self.step).ops

    def track_peak_bytes(self, *_: object) -> int:
        return part("measures.cost").count(self.step).peak_bytes

    track_flops.unit = "FLOPs"
    track_ops.unit = "operations"
    track_peak_bytes.unit = "bytes"
