"""Black-box variational inference with known answers: q = N(mu, diag e^{2w}), f = -ELBO in nats.

Two targets: a Gaussian posterior (Bayesian linear regression), where everything is closed form, and a Poisson
count with log link and standard normal prior, not conjugate yet with an exact ELBO. Every function of the
parameters is batch-safe under `torch.func.vmap`. All formulas follow from Gaussian moments.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class MeanField(NamedTuple):
    """Parameters mu and w of q, (D,), or a gradient or variance with respect to them."""

    mean: Tensor
    log_std: Tensor


class GaussianTarget(NamedTuple):
    """A joint density Z N(z; m, Lam^{-1}) in z: m (D,), Lam (D, D) and log Z."""

    mean: Tensor
    precision: Tensor
    log_evidence: Tensor


def regression(design: Tensor, response: Tensor, noise_variance: float, prior_variance: float) -> GaussianTarget:
    """Bayesian linear regression: y ~ N(Phi z, s2 I), z ~ N(0, t2 I), of the design Phi (N, D) and y (N,).

    Returns:
        The posterior, Lam = Phi'Phi/s2 + I/t2, m = Lam^{-1} Phi'y/s2, with its evidence.
    """
    n, dimension = design.shape
    identity = torch.eye(dimension, dtype=design.dtype, device=design.device)
    precision = design.mT @ design / noise_variance + identity / prior_variance
    back = design.mT @ response / noise_variance
    mean = torch.linalg.solve(precision, back)
    logdet = torch.logdet(precision) + dimension * math.log(prior_variance) + n * math.log(noise_variance)
    distance = response.square().sum() / noise_variance - back @ mean
    return GaussianTarget(mean, precision, -(n * math.log(2 * math.pi) + logdet + distance) / 2)


def objective(params: MeanField, target: GaussianTarget) -> Tensor:
    """The negative ELBO of a Gaussian target.

    Returns:
        f = -log Z + [(mu-m)' Lam (mu-m) + sum Lam_jj e^{2 w_j} - 2 sum w_j - D - log|Lam|] / 2, a scalar tensor.
    """
    offset = params.mean - target.mean
    curve = target.precision.diagonal()
    spread = (curve * (2 * params.log_std).exp() - 2 * params.log_std - 1).sum()
    return (offset @ target.precision @ offset + spread - torch.logdet(target.precision)) / 2 - target.log_evidence


def gradient(params: MeanField, target: GaussianTarget) -> MeanField:
    """The gradient (Lam (mu-m), Lam_jj e^{2 w_j} - 1) of `objective`."""
    variance = (2 * params.log_std).exp()
    return MeanField(target.precision @ (params.mean - target.mean), target.precision.diagonal() * variance - 1)


def optimum(target: GaussianTarget) -> tuple[MeanField, Tensor]:
    """The unique minimiser mu = m, w_j = -log(Lam_jj)/2, and f_* = -log Z + [sum log Lam_jj - log|Lam|]/2."""
    curve = target.precision.diagonal()
    gap = (curve.log().sum() - torch.logdet(target.precision)) / 2
    return MeanField(target.mean, -curve.log() / 2), gap - target.log_evidence


def hessian(params: MeanField, target: GaussianTarget) -> Tensor:
    """The Hessian blockdiag(Lam, 2 Lam_jj e^{2 w_j}), (2D, 2D), in the order mean, log_std."""
    corner = torch.diag(2 * target.precision.diagonal() * (2 * params.log_std).exp())
    zero = torch.zeros_like(corner)
    return torch.cat([torch.cat([target.precision, zero], 1), torch.cat([zero, corner], 1)])


def smoothness(target: GaussianTarget, largest_log_std: float) -> float:
    """The smoothness constant of `objective` on {w_j <= w_max}: max(lam_max(Lam), 2 max_j Lam_jj e^{2 w_max})."""
    top = float(torch.linalg.eigvalsh(target.precision)[-1])
    return max(top, 2 * float(target.precision.diagonal().max()) * math.exp(2 * largest_log_std))


def pathwise_variance(params: MeanField, target: GaussianTarget) -> MeanField:
    """Variances of the one-draw reparameterised gradient, coordinate by coordinate, entropy in closed form.

    Returns:
        Those of g_mu = Lam (z - m) and g_w = sd eps g_mu - 1 at z = mu + sd eps; divide by the number of draws. For
        c = Lam (mu - m), M = Lam diag(sd): Var g_mu,j = |M_j|^2 and Var g_w,j = sd_j^2 (c_j^2 + |M_j|^2 + M_jj^2),
        M_j the rows.
    """
    deviation = params.log_std.exp()
    mix = target.precision * deviation
    rows = mix.square().sum(-1)
    slope = target.precision @ (params.mean - target.mean)
    return MeanField(rows, deviation.square() * (slope.square() + rows + mix.diagonal().square()))
