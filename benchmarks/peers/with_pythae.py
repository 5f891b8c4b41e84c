"""Pythae's models on our nets: sigmoid outputs under "bce", unit-variance Gaussians under "mse"."""

from collections.abc import Callable
from importlib.metadata import version

import torch
from pythae.models import (
    CIWAE,
    IWAE,
    MIWAE,
    PIWAE,
    BaseAE,
    BetaVAE,
    BetaVAEConfig,
    CIWAEConfig,
    IWAEConfig,
    MIWAEConfig,
    PIWAEConfig,
    VAEConfig,
)
from pythae.models import VAE as PythaeVAE
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor

from benchmarks.peers.steps import Adapter, Backward, Contestant, Step
from vaebench.experiments.blackboxes.from_pythae import forward_backward, trained_backward
from vaebench.gradients.objectives import Objective
from vaebench.models import VAE
from vaebench.models.distributions import Bernoulli

NAME, VERSION = "pythae", version("pythae")
Build = Callable[[VAE, Objective, tuple[int, ...]], BaseAE]


class Encoder(BaseEncoder):
    """Our encoder behind Pythae's interface."""

    def __init__(self, model: VAE):
        super().__init__()
        self.net, self.mean, self.log_variance = model.encoder, model.mean, model.log_variance

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_variance = self.net(x).chunk(2, -1)
        return ModelOutput(embedding=self.mean(mean), log_covariance=self.log_variance(log_variance))


class Decoder(BaseDecoder):
    """Our decoder behind Pythae's interface."""

    def __init__(self, model: VAE):
        super().__init__()
        self.net, self.head = model.decoder, model.head

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.head(self.net(z)).mean)


def build(kind: type[BaseAE], config: type[VAEConfig], **settings: float) -> Build:
    """A Pythae model around ours."""

    def make(model: VAE, objective: Objective, event: tuple[int, ...]) -> BaseAE:
        bernoulli = model.head is Bernoulli
        options = dict(settings)
        if "number_samples" in config.__dataclass_fields__:
            options["number_samples"] = objective.samples
        elif objective.samples != 1:
            raise ValueError(f"Pythae's {kind.__name__} draws one sample, got {objective.samples}.")
        if config is BetaVAEConfig:
            options["beta"] = objective.beta
        chosen = config(
            input_dim=event, latent_dim=model.latents, reconstruction_loss="bce" if bernoulli else "mse", **options
        )
        return kind(chosen, encoder=Encoder(model), decoder=Decoder(model))

    return make


def adapter(make: Build) -> Adapter:
    """A model as an adapter, by the box that `vaebench certify --pythae` judges."""

    def prepare(model: VAE, objective: Objective) -> Backward:
        peers: dict[tuple[int, ...], Backward] = {}

        def backward(x: Tensor) -> float:
            event = tuple(x.shape[1:])
            if event not in peers:
                peers[event] = forward_backward(make(model, objective, event))
            return peers[event](x)

        return backward

    return prepare


def trained(make: Build) -> Adapter:
    """What Pythae's trainer for two optimizers leaves as gradients, from steps of size zero, and its decoder's loss."""

    def prepare(model: VAE, objective: Objective) -> Backward:
        def backward(x: Tensor) -> float:
            return trained_backward(make(model, objective, tuple(x.shape[1:])))(x)

        return backward

    return prepare


def stepper(make: Build):
    """A step as Pythae's trainer takes it, with the loss read back and torch's default Adam."""

    def prepare(model: VAE, objective: Objective, lr: float) -> Step:
        backward, optimizer = adapter(make)(model, objective), torch.optim.Adam(model.parameters(), lr=lr)

        def step(x: Tensor) -> float:
            optimizer.zero_grad()
            value = backward(x)
            optimizer.step()
            return value

        return step

    return prepare


M = 3
ADAPTERS = {
    "VAE": adapter(build(PythaeVAE, VAEConfig)),
    "BetaVAE": adapter(build(BetaVAE, BetaVAEConfig)),
    "IWAE": adapter(build(IWAE, IWAEConfig)),
    "CIWAE": adapter(build(CIWAE, CIWAEConfig, beta=0.5)),
}


def multiple(samples: int) -> Adapter:
    """MIWAE with M = `samples` outer estimates."""
    return adapter(build(MIWAE, MIWAEConfig, number_gradient_estimates=samples))


def partial(samples: int) -> Adapter:
    """PIWAE with M = `samples` outer estimates, trained by the trainer that Pythae's pipeline gives it."""
    return trained(build(PIWAE, PIWAEConfig, number_gradient_estimates=samples))


CONTESTANTS = [
    Contestant("pythae VAE", stepper(build(PythaeVAE, VAEConfig)), ("ELBO",), (1,)),
    Contestant("pythae IWAE", stepper(build(IWAE, IWAEConfig)), ("IWAE",)),
]
