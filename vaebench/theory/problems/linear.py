"""The linear VAE in closed form: objective, gradient, optimum, curvature, weights.

Model: p(x|z) = N(W z, s I), p(z) = N(0, I), q(z|x) = N(V x, diag(e^eta)), KL weight beta, x centred. Data enter the
objective through the scatter S = X'X/N, (d, d), only; s > 0 is the noise variance. The optimum is that of probabilistic
PCA (Tipping & Bishop, 1999; Lucas et al., 2019). Every function of the parameters uses batch-safe operations only, so
`torch.func.vmap` evaluates a fleet (leading axis on each block) at once.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jacrev


class LinearParameters(NamedTuple):
    """The blocks of a linear VAE, or of its gradient: decoder W (d, q), encoder V (q, d), log-variances eta (q,)."""

    W: Tensor
    V: Tensor
    eta: Tensor


def flatten(params: LinearParameters) -> Tensor:
    """The blocks side by side, (..., p) with p = 2 d q + q, in the order W, V, eta, rows first."""
    return torch.cat([params.W.flatten(-2), params.V.flatten(-2), params.eta], -1)


def unflatten(vector: Tensor, features: int, latents: int) -> LinearParameters:
    """Undo `flatten`: the blocks of (..., p), of d features and q latents, as views where possible."""
    w, v, eta = vector.split([features * latents, features * latents, latents], -1)
    return LinearParameters(w.unflatten(-1, (features, latents)), v.unflatten(-1, (latents, features)), eta)


def objective(params: LinearParameters, scatter: Tensor, noise_variance: float, beta: float = 1.0) -> Tensor:
    """The negative averaged beta-ELBO f, in nats per example.

    Returns:
        f = d/2 ln(2 pi s) + [tr (I-WV) S (I-WV)' + sum_j D_j |w_j|^2] / (2s) + beta/2 [tr D + tr V S V' - q - sum_j
        eta_j], D = diag(e^eta).

    >>> zero = LinearParameters(torch.zeros(3, 2), torch.zeros(2, 3), torch.zeros(2))
    >>> round(float(objective(zero, torch.eye(3), 1 / (2 * math.pi))), 4)  # 3 / (2 s)
    9.4248
    """
    w, v, eta = params
    d, variance = w.shape[-2], eta.exp()
    residual = torch.eye(d, dtype=w.dtype, device=w.device) - w @ v
    misfit = ((residual @ scatter) * residual).sum() + (variance * w.square().sum(-2)).sum()
    divergence = (variance - 1 - eta).sum() + ((v @ scatter) * v).sum()
    return d / 2 * math.log(2 * math.pi * noise_variance) + misfit / (2 * noise_variance) + beta / 2 * divergence


def gradient(params: LinearParameters, scatter: Tensor, noise_variance: float, beta: float = 1.0) -> LinearParameters:
    """The gradient of `objective`, block by block."""
    w, v, eta = params
    variance = eta.exp()
    unexplained = scatter - w @ (v @ scatter)  # (I - WV) S
    return LinearParameters(
        (w * variance - unexplained @ v.mT) / noise_variance,
        beta * (v @ scatter) - w.mT @ unexplained / noise_variance,
        variance * w.square().sum(-2) / (2 * noise_variance) - beta / 2 * (1 - variance),
    )


def optimum(scatter: Tensor, latents: int, noise_variance: float, beta: float = 1.0) -> tuple[LinearParameters, Tensor]:
    """A global minimiser of `objective` with q <= d latents and beta > 0, and the minimum f_* in nats per example.

    Returns:
        The parameters, strongest direction first, and f_*. With s' = beta s and S = U diag(lam) U': W = U_q (lam_q
        - s')_+^{1/2}, M = W'W + s' I, V = M^{-1} W', D = s' M^{-1}: the pPCA solution at noise variance s'. Columns
        of W may change sign freely.
    """
    d, inner = scatter.shape[-1], beta * noise_variance
    values, vectors = torch.linalg.eigh(scatter)
    values, vectors = values.flip(-1), vectors.flip(-1)
    marginal = values[..., :latents].clamp(min=inner)  # diagonal of M, and the modelled variance
    w = vectors[..., :latents] * (marginal - inner).sqrt().unsqueeze(-2)
    params = LinearParameters(w, w.mT / marginal.unsqueeze(-1), math.log(inner) - marginal.log())
    explained = (marginal.log() + values[..., :latents] / marginal).sum(-1)
    left_over = (d - latents) * math.log(inner) + values[..., latents:].sum(-1) / inner
    likelihood = (explained + left_over - d * math.log(inner)) / 2  # pPCA, less the normaliser
    return params, beta * likelihood + d / 2 * math.log(2 * math.pi * noise_variance)


def hessian(params: LinearParameters, scatter: Tensor, noise_variance: float, beta: float = 1.0) -> Tensor:
    """The Hessian of `objective`, (p, p) in the order of `flatten`, by automatic differentiation."""
    features, latents = params.W.shape[-2:]

    def flat(vector: Tensor) -> Tensor:
        return objective(unflatten(vector, features, latents), scatter, noise_variance, beta)

    return jacrev(grad(flat))(flatten(params))


def smoothness_on_ball(
    decoder_norm: float,
    encoder_norm: float,
    largest_variance: float,
    top_eigenvalue: float,
    noise_variance: float,
    beta: float = 1.0,
) -> float:
    """The smoothness constant of `objective` on a ball, certified: no curvature there exceeds it.

    Returns:
        L, in nats per squared parameter. On {|W| <= R_W, |V| <= R_V, e^eta <= D} (spectral norms: decoder, encoder
        and largest variance) each block of the Hessian is bounded by its norm, and L is the largest eigenvalue of
        the symmetric 3 x 3 matrix of those norms. The top eigenvalue is that of S.

    >>> smoothness_on_ball(0.0, 0.0, 1.0, 2.0, 1.0)  # |2/s| couples W and V at the origin
    3.5615528128088303
    """
    r_w, r_v, d, lam, s = decoder_norm, encoder_norm, largest_variance, top_eigenvalue, noise_variance
    w_w, v_v, e_e = (lam * r_v**2 + d) / s, lam * r_w**2 / s + beta * lam, d * r_w**2 / (2 * s) + beta * d / 2
    w_v, w_e = lam * (1 + 2 * r_w * r_v) / s, d * r_w / s
    norms = torch.tensor([[w_w, w_v, w_e], [w_v, v_v, 0.0], [w_e, 0.0, e_e]], dtype=torch.float64)
    return float(torch.linalg.eigvalsh(norms)[-1])


def log_weights(params: LinearParameters, x: Tensor, noise: Tensor, noise_variance: float, beta: float = 1.0) -> Tensor:
    """Log importance weights log p(x|z) + beta (log p(z) - log q(z|x)) at z = V x + e^{eta/2} eps.

    Returns:
        (...), in nats; leading axes of the examples x (..., d) and of the noise eps (..., q) broadcast.
    """
    w, v, eta = params
    latent = x @ v.mT + (eta / 2).exp() * noise
    error = x - latent @ w.mT
    fit = -error.square().sum(-1) / noise_variance - w.shape[-2] * math.log(2 * math.pi * noise_variance)
    return fit / 2 + beta / 2 * (noise.square() + eta - latent.square()).sum(-1)


def log_evidence(params: LinearParameters, x: Tensor, noise_variance: float) -> Tensor:
    """The log evidence log p(x) = log N(x; 0, W W' + s I) in nats, (...), of examples (..., d)."""
    w, (d, q) = params.W, params.W.shape[-2:]
    inner = w.mT @ w / noise_variance + torch.eye(q, dtype=w.dtype, device=w.device)
    back = x @ w / noise_variance
    distance = x.square().sum(-1) / noise_variance - (back @ torch.linalg.inv(inner) * back).sum(-1)
    return -(d * math.log(2 * math.pi * noise_variance) + torch.logdet(inner) + distance) / 2
