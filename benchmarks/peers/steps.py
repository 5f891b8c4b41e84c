"""What a contestant is, and those that need no other library: this repository's path and a plain one.

An adapter maps (model, objective) to a `Backward`: from x (B, *event) it fills the gradients of the model's
parameters, averaged over the batch, and returns the loss it reports, a batch mean in nats. Noise comes from
torch's global generator, for that is all that the libraries use.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaebench.gradients.estimators import Estimator, analytic_kl, doubly_reparameterized, draw_noise, pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.models import VAE
from vaebench.models.activations import SoftClip
from vaebench.models.convolutions import Conv2d, ConvTranspose2d
from vaebench.models.distributions import Bernoulli
from vaebench.training.compilation import compiled
from vaebench.training.optimizers import fused_adam
from vaebench.training.steps import step_taker

Backward = Callable[[Tensor], float]
Adapter = Callable[[VAE, Objective], Backward]
Step = Callable[[Tensor], object]
StepMaker = Callable[[VAE, Objective, float], Step]


class Contestant(NamedTuple):
    """One way to take a training step: forward, backward, Adam with the learning rate given."""

    name: str
    step: StepMaker
    bounds: tuple[str, ...] = ("ELBO", "IWAE")
    samples: tuple[int, ...] = ()


def replicate(backward: Backward, model: VAE, x: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Reported losses (R,) and gradients (R, p) of independent noise on one batch."""
    values, gradients = [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(count):
            model.zero_grad()
            values.append(backward(x))
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
            gradients.append(torch.cat([part.flatten() for part in parts]))
    model.zero_grad()
    return torch.tensor(values, dtype=torch.float64), torch.stack(gradients)


def backward_of(estimator: Estimator) -> Adapter:
    """An estimator of this repository as an adapter."""

    def adapter(model: VAE, objective: Objective) -> Backward:
        loss = Loss(model, estimator, objective)

        def backward(x: Tensor) -> float:
            value = loss(x, draw_noise(model, x, objective))
            value.backward()
            return float(value.detach())

        return backward

    return adapter


def ours(model: VAE, objective: Objective, lr: float) -> Step:
    """The compiled step of a fleet of one, as `vaebench run` takes it, by the peers' gradient; nothing is read back."""
    loss = Loss(model, analytic_kl if objective.alpha == 1 else pathwise, objective)
    parameters = {name: parameter.detach().unsqueeze(0) for name, parameter in loss.named_parameters()}
    take = step_taker(loss, fused_adam(list(parameters.values()), lr), compiled)

    def step(x: Tensor) -> None:
        take(parameters, x.unsqueeze(0), draw_noise(model, x, objective).unsqueeze(0))

    return step


class FormulaSoftClip(SoftClip):
    """Soft clipping as its formula is written."""

    def forward(self, x: Tensor) -> Tensor:
        """Clip softly, of any shape."""
        below, above = (F.softplus(x - corner, beta=self.sharpness) for corner in (self.low, self.high))
        return self.low + below - above


TORCHS_OWN = {Conv2d: nn.Conv2d, ConvTranspose2d: nn.ConvTranspose2d, SoftClip: FormulaSoftClip}


def with_torchs_layers(model: VAE) -> VAE:
    """The same function of the same parameters, changed in place to what the peers' users have."""
    for module in model.modules():
        if type(module) in TORCHS_OWN:
            module.__class__ = TORCHS_OWN[type(module)]
    return model


def plain_loss(model: VAE, objective: Objective, x: Tensor) -> tuple[Tensor, Tensor]:
    """Surrogate and reported value of the ELBO or the IWAE bound, as one writes them from their formulas.

    The decoder ends in a sigmoid and is compared with x by binary cross-entropy, or by the squared error under a
    Gaussian; the weights of the IWAE bound are normalised, detached, and multiply the log-weights (Burda et al.,
    2016, eq. 14).
    """
    mean, log_variance = model.encoder(x).chunk(2, -1)
    mean, log_variance = model.mean(mean), model.log_variance(log_variance)
    std = torch.exp(0.5 * log_variance)
    z = mean + std * torch.randn(objective.samples, *mean.shape, dtype=x.dtype, device=x.device)
    likelihood = model.head(model.decoder(z.flatten(0, 1)))
    pixels, target = likelihood.mean.flatten(1), x.repeat(objective.samples, *[1] * (x.ndim - 1)).flatten(1)
    if isinstance(likelihood, Bernoulli):
        log_likelihood = -F.binary_cross_entropy(pixels, target, reduction="none").sum(1)
    else:
        variance = torch.exp(2 * likelihood.log_std)
        log_likelihood = -0.5 * ((target - pixels) ** 2 / variance + torch.log(2 * math.pi * variance)).sum(1)
    log_prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
    log_posterior = -0.5 * ((z - mean) ** 2 / std**2 + log_variance + math.log(2 * math.pi)).sum(-1)
    log_w = log_likelihood.view(z.shape[:2]) + log_prior - log_posterior
    if objective.alpha == 1:
        return -log_w.mean(), -log_w.mean()
    w = torch.softmax(log_w, 0).detach()
    return -(w * log_w).sum(0).mean(), math.log(len(log_w)) - torch.logsumexp(log_w, 0).mean()


def plain(model: VAE, objective: Objective) -> Backward:
    """The plain loss as an adapter."""

    def backward(x: Tensor) -> float:
        surrogate, value = plain_loss(model, objective, x)
        surrogate.backward()
        return value.item()

    return backward


def gradient_norms(parameters: Iterable[Tensor]) -> float:
    """Norm of the gradient, read back parameter by parameter, as training scripts record it."""
    return sum(p.grad.norm(2).item() ** 2 for p in parameters if p.grad is not None) ** 0.5


def plain_step(model: VAE, objective: Objective, lr: float) -> Step:
    """A step as a training script has it: plain loss, recorded value and gradient norm, torch's default Adam."""
    backward, optimizer = plain(model, objective), torch.optim.Adam(model.parameters(), lr=lr)

    def step(x: Tensor) -> tuple[float, float]:
        optimizer.zero_grad()
        value = backward(x)
        norm = gradient_norms(model.parameters())
        optimizer.step()
        return value, norm

    return step


OURS = Contestant("vaebench", ours)
PLAIN = Contestant("plain", plain_step)
TRUSTED = {"pathwise": backward_of(pathwise), "doubly_reparameterized": backward_of(doubly_reparameterized)}
