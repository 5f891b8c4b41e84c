"""The gradient noise of the linear VAE in closed form.

The gradient of one example under one latent draw is a quadratic polynomial in the noise, so its moments are finite
sums. Splitting them by origin gives Var(g; B examples, M draws) = data / B + latent / (B M): more draws never reduce
the part that comes from the data. Arguments are those of `linear`; leading axes of examples x (..., d) and noise eps
(..., q) broadcast.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.theory.problems.linear import LinearParameters, flatten


class NoiseCovariance(NamedTuple):
    """Covariance of the gradient from one example and one latent draw, (p, p), split by origin.

    The data part is over examples, of the gradient averaged over draws; the latent part is over draws, averaged over
    examples.
    """

    data: Tensor
    latent: Tensor

    def at(self, examples: int, draws: int = 1) -> Tensor:
        """Covariance of the mean gradient of B examples, drawn with replacement, and M draws of each."""
        return self.data / examples + self.latent / (examples * draws)


def sample_gradient(
    params: LinearParameters, x: Tensor, noise: Tensor, noise_variance: float, beta: float = 1.0
) -> LinearParameters:
    """The reparameterised gradient of one example's negative beta-ELBO, KL in closed form.

    Returns:
        Gradients with the leading axes of x and noise; their mean over both is `gradient`. With xi = e^{eta/2} eps,
        m = V x, e = x - W(m + xi): g_W = -e (m+xi)'/s, g_V = (beta m - W'e/s) x', g_eta = -(W'e) xi / (2s) - beta
        (1-D)/2.
    """
    w, v, eta = params
    spread = (eta / 2).exp() * noise
    mean = x @ v.mT
    latent = mean + spread
    error = x - latent @ w.mT
    back = error @ w / noise_variance
    g_v = (beta * mean - back).unsqueeze(-1) * x.unsqueeze(-2)
    return LinearParameters(
        -error.unsqueeze(-1) * latent.unsqueeze(-2) / noise_variance,
        g_v,
        -back * spread / 2 - beta / 2 * (1 - eta.exp()),
    )


def second_moments(params: LinearParameters, x: Tensor, noise_variance: float, beta: float = 1.0) -> LinearParameters:
    """E|g_W|^2 and E|g_V|^2, (...), and E g_eta^2, (..., q), of `sample_gradient`, as the fields W, V, eta."""
    (w, v, eta), s = params, noise_variance
    variance, gram = eta.exp(), w.mT @ w
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    mean = x @ v.mT
    fit = x - mean @ w.mT
    back = fit @ w
    pull = back / s - beta * mean
    shrink = beta / 2 * (1 - variance)
    scale = (fit.square().sum(-1) + (diagonal * variance).sum()) * (mean.square().sum(-1) + variance.sum())
    cross = 2 * (diagonal * variance.square()).sum() - 4 * (back * variance * mean).sum(-1)
    spread = (gram.square() * variance).sum()
    quadratic = (gram.square() * variance).sum(-1) * variance + 2 * (diagonal * variance).square()
    linear = back.square() * variance
    constant = shrink.square() - diagonal * variance * shrink / s
    return LinearParameters(
        (scale + cross) / s**2,
        x.square().sum(-1) * (pull.square().sum(-1) + spread / s**2),
        (linear + quadratic) / (4 * s**2) + constant,
    )


def gradient_covariance(
    params: LinearParameters, x: Tensor, noise_variance: float, beta: float = 1.0
) -> NoiseCovariance:
    """The full covariance of `sample_gradient`, example uniform in x (N, d) and eps standard normal: exact.

    Returns:
        Data and latent part, (p, p) each, in the order of `flatten`. The gradient is c(x) + A(x) eps + eps' Q eps
        with Q free of x, so its coefficients are exact differences, the latent part is E_x[A A'] + 2 tr(Q_i Q_j)
        and the data part is Cov_x(c).
    """

    def at(examples: Tensor, noise: Tensor) -> Tensor:
        return flatten(sample_gradient(params, examples, noise, noise_variance, beta))

    unit = torch.eye(params.eta.shape[-1], dtype=x.dtype, device=x.device)
    origin, axes = unit[0] * 0, at(x[0], unit)
    constant = at(x, origin)
    slope = (at(x, unit[:, None]) - at(x, -unit[:, None])) / 2  # A, (q, N, p)
    curve = at(x[0], unit[:, None] + unit) - axes[:, None] - axes + constant[0]  # 2 Q, (q, q, p)
    spread = constant - constant.mean(0)
    data = spread.mT @ spread / len(x)
    slope, curve = slope.flatten(0, 1), curve.flatten(0, 1)
    latent = slope.mT @ slope / len(x) + curve.mT @ curve / 2
    return NoiseCovariance(data, latent)
