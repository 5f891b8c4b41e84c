"""The linear VAE, whose every quantity has a closed form."""

import torch
from torch import Tensor, nn

from vaebench.models.distributions import Gaussian
from vaebench.models.protocol import MODELS, expected_gaussian_log_likelihood, gaussian
from vaebench.support.checks import available_device, positive_integer


class LinearVAE(nn.Module):
    """p(x|z) = N(W z, s I) and q(z|x) = N(V x, diag e^eta), for centred x (Lucas et al., 2019).

    W is (d, D), V (D, d), the log-variances eta (D,), and the noise variance s > 0 is fixed.
    """

    def __init__(self, W: Tensor, V: Tensor, eta: Tensor, noise_variance: float):
        super().__init__()
        self.W, self.V, self.eta = nn.Parameter(W), nn.Parameter(V), nn.Parameter(eta)
        self.latents = W.shape[1]
        self.noise_variance = float(noise_variance)
        self.head = gaussian(noise_variance)

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x) with parameters (B, D), from x (B, d)."""
        mean = x @ self.V.mT
        return Gaussian(mean, (0.5 * self.eta).expand_as(mean))

    def likelihood(self, z: Tensor) -> Gaussian:
        """p(x|z) with mean (K, B, d), from z (K, B, D)."""
        return self.head(z @ self.W.mT)

    def expected_log_likelihood(self, x: Tensor, q: Gaussian) -> Tensor:
        """E_q log p(x|z) in nats, (B,), from x (B, d) and any Gaussian q with parameters (B, D)."""
        return expected_gaussian_log_likelihood(x, q, self.W, self.noise_variance)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (B,), from x (B, d): the marginal is N(0, W W' + s I)."""
        noise = self.noise_variance * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        covariance = self.W @ self.W.mT + noise
        return torch.distributions.MultivariateNormal(x.new_zeros(x.shape[1]), covariance).log_prob(x)


@MODELS.register
def linear_vae(
    features: int = 6,
    latents: int = 2,
    noise_variance: float = 0.5,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LinearVAE:
    """A linear VAE with W (d, D) and V (D, d) uniform in +-1/sqrt(fan_in), eta = 0, and noise variance s."""
    features, latents = positive_integer("features", features), positive_integer("latents", latents)
    device = available_device(device)

    def draw(rows: int, columns: int) -> Tensor:
        uniform = torch.rand(rows, columns, generator=generator, dtype=torch.float64, device="cpu")
        return ((2 * uniform - 1) * columns**-0.5).to(device=device, dtype=dtype)

    W, V = draw(features, latents), draw(latents, features)
    return LinearVAE(W, V, W.new_zeros(latents), noise_variance)
