"""A target without conjugacy and with an exact ELBO: y ~ Poisson(e^z), z ~ N(0, 1), q = N(mu, e^{2w}).

With v = e^{2w} and r = E_q e^z = exp(mu + v/2): f = -y mu + r + log y! + (v + mu^2 - 1 - 2 w) / 2, in nats. All that
follows are Gaussian moments; mean and log_std are scalars (or batches of them), the count is y >= 0.
"""

import math

import torch
from torch import Tensor

from vaebench.theory.problems.regression import MeanField


def objective(params: MeanField, count: int) -> Tensor:
    """The negative ELBO f, of the parameters' shape."""
    (mu, w), v = params, (2 * params.log_std).exp()
    divergence = (v + mu.square() - 1 - 2 * w) / 2
    return (mu + v / 2).exp() - count * mu + math.lgamma(count + 1) + divergence


def gradient(params: MeanField, count: int) -> MeanField:
    """The gradient (r + mu - y, v (r + 1) - 1) of `objective`."""
    mu, v = params.mean, (2 * params.log_std).exp()
    rate = (mu + v / 2).exp()
    return MeanField(rate + mu - count, v * (rate + 1) - 1)


def hessian(params: MeanField) -> Tensor:
    """The Hessian [[r + 1, r v], [r v, r v (v + 2) + 2 v]], (..., 2, 2); the count does not enter."""
    v = (2 * params.log_std).exp()
    rate = (params.mean + v / 2).exp()
    top, cross, corner = rate + 1, rate * v, rate * v * (v + 2) + 2 * v
    return torch.stack([torch.stack([top, cross], -1), torch.stack([cross, corner], -1)], -2)


def smoothness(largest_mean: float, largest_log_std: float) -> float:
    """The exact smoothness constant on {mu <= mu_max, w <= w_max}: the Hessian there grows entrywise.

    Returns:
        The largest eigenvalue at the corner: entries are positive and increasing in mu and w, so by
        Perron-Frobenius it is, too.
    """
    corner = MeanField(*torch.tensor([largest_mean, largest_log_std], dtype=torch.float64))
    return float(torch.linalg.eigvalsh(hessian(corner))[-1])


def optimum(count: int) -> tuple[MeanField, Tensor]:
    """The minimiser and f_*, by Newton steps in float64 to rounding (f is convex in mu and v).

    >>> params, value = optimum(3)
    >>> [round(float(number), 6) for number in (*params, value)]
    [0.687423, -0.598863, 2.528147]

    Returns:
        The parameters and f_*.
    """
    point = torch.tensor([math.log1p(count) / 2, -0.5], dtype=torch.float64)
    for _ in range(50):
        params = MeanField(*point)
        step = torch.linalg.solve(hessian(params), torch.stack(gradient(params, count)))
        point = point - step / max(1.0, float(step.norm()))
    params = MeanField(*point)
    return params, objective(params, count)


def pathwise_variance(params: MeanField, count: int) -> MeanField:
    """Variances of the one-draw reparameterised gradient, entropy in closed form.

    Returns:
        Those of g_mu = e^z + z - y and g_w = sd eps g_mu - 1 at z = mu + sd eps; divide by the number of draws.
        Moments of e^{kz} h(eps) are those of h(eps + k sd), times exp(k mu + k^2 v / 2).
    """
    v = (2 * params.log_std).exp()
    offset = params.mean - count
    once, twice = (params.mean + v / 2).exp(), (2 * params.mean + 2 * v).exp()
    mean_square = twice + 2 * once * (offset + v) + offset.square() + v
    cross = (1 + v) * (offset + v) + 2 * v
    spread = twice * (1 + 4 * v) + 2 * once * cross + offset.square() + 3 * v
    return MeanField(mean_square - (once + offset).square(), v * spread - (v * (once + 1)).square())
