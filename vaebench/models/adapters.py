"""Bring your own: a VAE from any two modules, with a likelihood by name or by one's own log-density."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaebench.models.distributions import Bernoulli, Gaussian, Likelihood, Poisson
from vaebench.models.protocol import gaussian
from vaebench.support.checks import one_of, positive_integer

LogProb = Callable[..., Tensor]
SPREADS = {"log_variance": 0.5, "log_std": 1.0}  # what the encoder's second output is, and its share of log std


class LearnedGaussian(nn.Module):
    """N(mean, c^2 I) whose one variance c^2 is learned through log c, as in the sigma-VAE (Rybkin et al., 2021)."""

    def __init__(self, variance: float = 1.0):
        super().__init__()
        self.log_std = nn.Parameter(gaussian(variance)(torch.zeros(1)).log_std.reshape(1))

    def forward(self, mean: Tensor) -> Gaussian:
        """The likelihood, from means (K, B, *event)."""
        return Gaussian(mean, self.log_std)


class OwnLikelihood(NamedTuple):
    """A likelihood that is known by its log-density alone.

    Attributes:
        outputs: of the decoder, (K, B, ...) each.
        density: (x, *outputs) -> log p(x | outputs), of N examples at once: (N,), or (N, *event) to be summed.
    """

    outputs: tuple[Tensor, ...]
    density: LogProb

    @property
    def mean(self) -> Tensor:
        """The decoder's first output, (K, B, *event)."""
        return self.outputs[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of `value` (B, *event), in nats, (K, B)."""
        leading = self.outputs[0].shape[:2]
        rows = value.expand(*leading, *value.shape[1:]).flatten(0, 1)
        found = self.density(rows, *(part.flatten(0, 1) for part in self.outputs))
        if found.shape[:1] != rows.shape[:1]:
            raise ValueError(
                f"The log-density must be (N,) or (N, *event) of N = {len(rows)} examples, got shape "
                f"{tuple(found.shape)}; do not average over the batch."
            )
        return found.reshape(*leading, -1).sum(-1)


LIKELIHOODS: Mapping[str, Callable[[], Callable[..., Likelihood]]] = {
    "bernoulli": lambda: Bernoulli,
    "gaussian": lambda: gaussian(1.0),
    "learned_gaussian": LearnedGaussian,
    "poisson": lambda: Poisson,
}


class EncoderDecoder(nn.Module):
    """A `LatentModel` of two modules; see `from_encoder_decoder`."""

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, latents: int, likelihood: Callable[..., Likelihood], spread: float
    ):
        """Join the parts; `spread` is what the encoder's second output is multiplied with to be log std."""
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, likelihood
        self.latents, self.spread = latents, spread

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x) with parameters (B, D), from x (B, *event)."""
        found, expected = self.encoder(x), (len(x), self.latents)
        several = isinstance(found, (tuple, list))
        parts = [*found] if several else [*found.chunk(2, -1)] if isinstance(found, Tensor) else []
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        if shapes != [expected, expected]:
            one = f"one tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            got = shapes if several else one
            raise ValueError(
                f"The encoder must return a mean and a spread, each (B, D) = {expected}, or both side by side, "
                f"(B, 2 D) = {(len(x), 2 * self.latents)}; got {got}."
            )
        return Gaussian(parts[0], self.spread * parts[1])

    def likelihood(self, z: Tensor) -> Likelihood:
        """p(x|z) with parameters (K, B, *event), from z (K, B, D)."""
        found, rows = self.decoder(z.flatten(0, 1)), z.shape[0] * z.shape[1]
        parts = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        if any(not isinstance(part, Tensor) or part.shape[:1] != (rows,) for part in parts):
            shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
            raise ValueError(f"The decoder must map (N, D) to (N, *event), N = {rows} here; got {shapes}.")
        return self.head(*(part.unflatten(0, z.shape[:2]) for part in parts))


def from_encoder_decoder(
    encoder: nn.Module,
    decoder: nn.Module,
    latents: int,
    likelihood: str | Callable[..., Likelihood] = "bernoulli",
    *,
    log_prob: LogProb | None = None,
    spread: str = "log_variance",
) -> EncoderDecoder:
    """A model of one's own from any two modules; they are used as they are, in whatever dtype they have.

    >>> from torch import nn
    >>> model = from_encoder_decoder(nn.Linear(64, 2 * 4), nn.Linear(4, 64), latents=4)
    >>> model.posterior(torch.zeros(3, 64)).mean.shape
    torch.Size([3, 4])

    Args:
        encoder: (B, *event) -> a pair (mean, spread), each (B, D), or one tensor (B, 2 D) of both side by side.
        decoder: (N, D) -> (N, *event): logits, means or log-rates; or several outputs, for the likelihood to take.
        latents: D.
        likelihood: "bernoulli" (from logits), "gaussian" (variance 1), "learned_gaussian" (one variance, a
            parameter), "poisson" (from log-rates); or a function of the decoder's outputs (K, B, ...), as
            `gaussian(0.5)` and `Gaussian` are (the latter of a mean and a log std).
        log_prob: one's own log-density in place of a likelihood: (x, *outputs) -> (N,) or (N, *event), of N rows.
        spread: what the encoder's second output is, "log_variance" or "log_std".

    Returns:
        The model, a `LatentModel` and an `nn.Module` that holds both.

    Raises:
        ValueError: if a name is unknown, or both a likelihood other than the default and a log-density are given.
    """
    one_of("spread", spread, SPREADS)
    if log_prob is not None:
        if likelihood != "bernoulli":
            raise ValueError("likelihood and log_prob say the same thing twice; give one of them.")
        density = log_prob

        def head(*outputs: Tensor) -> Likelihood:
            return OwnLikelihood(outputs, density)
    else:
        head = _head(likelihood)
    return EncoderDecoder(encoder, decoder, positive_integer("latents", latents), head, SPREADS[spread])


def _head(likelihood: object) -> Callable[..., Likelihood]:
    if isinstance(likelihood, str):
        one_of("likelihood", likelihood, LIKELIHOODS)
        return LIKELIHOODS[likelihood]()
    if not callable(likelihood):
        raise ValueError(f"likelihood must be a name or a function of the decoder's output, got {likelihood!r}.")
    return likelihood  # pyright: ignore[reportReturnType]
