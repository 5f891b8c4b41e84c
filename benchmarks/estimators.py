"""What one gradient costs and how accurate it is, for every estimator over K and B.

Read a cost beside its accuracy: `track_variance` and `track_inverse_snr` are of the encoder's gradient, given
the batch, where estimators differ; lower is better everywhere.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch

from benchmarks.common import (
    DEVICES,
    batch,
    by_profile,
    conv32,
    generator,
    mlp,
    part,
    require_device,
    wall_clock,
)

SAMPLES = [1, 5, 10, 50]
BATCHES = by_profile([32], [32, 128, 256])
ELBO = ["pathwise", "analytic_kl", "doubly_reparameterized", "score_function", "leave_one_out"]
IWAE = ["pathwise", "doubly_reparameterized", "score_function", "leave_one_out"]
QUICK = ["pathwise", "doubly_reparameterized"]


class Gradient(ABC):
    """One gradient, and one training step with Adam."""

    version = "1"
    param_names = ("estimator", "K", "B", "device")
    timeout = 600
    rounds = 1
    repeat = (3, 5, 0.5)
    warmup_time = 0.1
    alpha: float
    replicates: int
    key: tuple[Any, ...] | None = None

    @staticmethod
    @abstractmethod
    def problem(device: str) -> tuple[Any, torch.Tensor]:
        """Model and data."""

    def setup(self, estimator: str, samples: int, size: int, device: str) -> None:
        require_device(device)
        if estimator == "leave_one_out" and samples == 1:
            raise NotImplementedError("leave_one_out needs at least 2 samples")
        if self.key == (estimator, samples, size, device):
            return
        self.key = (estimator, samples, size, device)
        self.timer = wall_clock(device)
        estimators, objectives = part("gradients.estimators"), part("gradients.objectives")
        self.model, data = self.problem(device)
        self.x = batch(data, size)
        objective = objectives.Objective(samples, self.alpha)
        self.noise = estimators.draw_noise(self.model, self.x, objective, generator(device))
        self.loss = part("gradients.loss").Loss(self.model, estimators.ESTIMATORS[estimator], objective)
        self.low_variance = part("gradients.loss").Loss(self.model, estimators.doubly_reparameterized, objective)
        self.parameters = list(self.model.parameters())
        self.optimizer = part("training.optimizers").adam(self.parameters, lr=1e-4)

    def gradient(self) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(self.loss(self.x, self.noise), self.parameters)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.x, self.noise).backward()
        self.optimizer.step()

    def time_gradient(self, *_: object) -> None:
        self.gradient()

    def time_step(self, *_: object) -> None:
        self.step()

    def track_flops(self, *_: object) -> int:
        return part("measures.cost").count(self.gradient).flops

    def track_ops(self, *_: object) -> int:
        return part("measures.cost").count(self.gradient).ops

    def track_peak_bytes(self, *_: object) -> int:
        return part("measures.cost").count(self.gradient).peak_bytes

    def track_saved_bytes(self, *_: object) -> int:
        return part("measures.cost").saved_bytes(lambda: self.loss(self.x, self.noise))

    def track_variance(self, *_: object) -> float:
        return part("measures.probes").gradient_variance(self.moments(self.loss), self.encoder()).value

    def track_inverse_snr(self, estimator: str, *_: object) -> float:
        """The signal is that of the doubly reparameterized gradient, which has the same expectation."""
        signal = self.moments(self.low_variance)
        noise = signal if estimator == "doubly_reparameterized" else self.moments(self.loss)
        return 1 / part("measures.probes").snr(signal, noise, self.encoder()).value

    def moments(self, loss: Any) -> Any:
        moments = part("measures.moments")
        draws = moments.conditional(loss, self.x, generator(self.x.device.type))
        return moments.gradient_moments(loss, draws, self.replicates)

    def encoder(self) -> tuple[str, ...]:
        return part("measures.moments").parameter_groups(self.loss, self.x)["phi"]

    track_flops.unit = "FLOPs"
    track_ops.unit = "operations"
    track_peak_bytes.unit = track_saved_bytes.unit = "bytes"
    track_variance.unit = "nats^2"
    track_inverse_snr.unit = "noise / signal"


class ElboMlp(Gradient):
    """The ELBO's gradient, 64-200-200-50 perceptron on digits."""

    alpha = 1.0
    params = (ELBO, by_profile([1, 10, 50], SAMPLES), BATCHES, DEVICES)
    replicates = 64
    problem = staticmethod(mlp)


class IwaeMlp(Gradient):
    """The IWAE bound's gradient, 64-200-200-50 perceptron on digits."""

    alpha = 0.0
    params = (IWAE, by_profile([1, 10, 50], SAMPLES), BATCHES, DEVICES)
    replicates = 64
    problem = staticmethod(mlp)


class ElboConv32(Gradient):
    """The ELBO's gradient, the paper's convolutional net on patches."""

    alpha = 1.0
    params = (by_profile(QUICK, ELBO), by_profile([1, 10], SAMPLES), BATCHES, DEVICES)
    replicates = 16
    problem = staticmethod(conv32)


class IwaeConv32(Gradient):
    """The IWAE bound's gradient, the paper's convolutional net on patches."""

    alpha = 0.0
    params = (by_profile(QUICK, IWAE), by_profile([1, 10], SAMPLES), BATCHES, DEVICES)
    replicates = 16
    problem = staticmethod(conv32)
