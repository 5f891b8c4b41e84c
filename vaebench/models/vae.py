"""Variational autoencoders with neural encoders and decoders."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vaebench.models.activations import Activations, SoftClip, relu, soft_clip, tanh
from vaebench.models.distributions import Bernoulli, Gaussian, Likelihood
from vaebench.models.networks import CONV_SHAPES, conv_decoder, conv_encoder, initialise, mlp
from vaebench.models.protocol import MODELS, gaussian
from vaebench.support.checks import available_device, positive_integer


class VAE(nn.Module):
    """A variational autoencoder from any encoder, decoder and likelihood (Kingma & Welling, 2014).

    The encoder maps (B, *event) to (B, 2 D), means then log-variances, to which the activations `mean` and
    `log_variance` are applied (default none); the decoder maps (N, D) to (N, *event), and the likelihood the decoder's
    output (K, B, *event) to p(x|z), as `Bernoulli` or `gaussian(variance)` does.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latents: int,
        likelihood: Callable[[Tensor], Likelihood] = Bernoulli,
        activations: Activations | None = None,
    ):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.latents = positive_integer("latents", latents)
        self.head = likelihood
        _, self.mean, self.log_variance = activations or relu()

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x) = N(mu(x), diag sigma^2(x)) with parameters (B, D), from x (B, *event)."""
        mean, log_variance = self.encoder(x).chunk(2, -1)
        return Gaussian(self.mean(mean), 0.5 * self.log_variance(log_variance))

    def likelihood(self, z: Tensor) -> Likelihood:
        """p(x|z) with parameters (K, B, *event), from z (K, B, D)."""
        return self.head(self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2]))


@MODELS.register
def mlp_vae(
    event: Sequence[int],
    hidden: Sequence[int] = (200, 200),
    latents: int = 50,
    activations: Activations | None = None,
    likelihood: Callable[[Tensor], Likelihood] = Bernoulli,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> VAE:
    """A VAE of multilayer perceptrons, by default the 200-200-50 net with tanh of Burda et al. (2016).

    Returns:
        The model of x of the shape `event`; `hidden` are the widths of the encoder's hidden layers, which the
        decoder mirrors, and the likelihood is p(x|z) of the decoder's output.
    """
    activations = activations or tanh()
    latents, size = positive_integer("latents", latents), math.prod(event)
    encoder = nn.Sequential(nn.Flatten(), *mlp((size, *hidden, 2 * latents), activations.hidden))
    decoder = nn.Sequential(*mlp((latents, *hidden[::-1], size), activations.hidden), nn.Unflatten(1, tuple(event)))
    model = VAE(encoder, decoder, latents, likelihood, activations)
    return initialise(model, generator, dtype, available_device(device))


@MODELS.register
def conv_vae(
    size: int = 32,
    latents: int = 100,
    activations: Activations | None = None,
    likelihood: Callable[[Tensor], Likelihood] = Bernoulli,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> VAE:
    """The convolutional VAE of the paper's experiments, for colour images (B, 3, size, size).

    Returns:
        The model, for a size of 32 or 64, with the activations `relu()` (the default) or `soft_clip(s)`.

    Raises:
        ValueError: if there is no net for that size.
    """
    if size not in CONV_SHAPES:
        raise ValueError(f"size must be one of {', '.join(map(str, CONV_SHAPES))}, got {size!r}.")
    activations = activations or relu()
    latents = positive_integer("latents", latents)
    encoder = conv_encoder(size, 2 * latents, activations.hidden)
    decoder = conv_decoder(size, latents, activations.hidden)
    model = VAE(encoder, decoder, latents, likelihood, activations)
    return initialise(model, generator, dtype, available_device(device))


@MODELS.register
def deep_gaussian_vae(
    event: Sequence[int],
    hidden: Sequence[int] = (50, 50),
    latents: int = 2,
    sharpness: float = 1.0,
    variance: float = 1.0,
    output_range: tuple[float, float] = (-50.0, 50.0),
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> VAE:
    """The deep Gaussian VAE of the paper, p(x|z) = N(G(z), c^2 I): its assumptions hold by construction.

    Returns:
        The model with soft clipping of one sharpness in every hidden layer (0, 50), on G (`output_range`), on the
        mean (-50, 50) and the log-variance (-20, 20) of q: G and mu are bounded, the variance is bounded below, the
        activations are smooth and Lipschitz. `largest_parameter` reports the bound on the parameters.
    """
    model = mlp_vae(event, hidden, latents, soft_clip(sharpness), gaussian(variance), generator, dtype, device)
    model.decoder = nn.Sequential(model.decoder, SoftClip(sharpness, *output_range))
    return model
