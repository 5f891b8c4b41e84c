"""Exact multi-sample bounds by quadrature: ELBO, IWAE and VR-IWAE, for any number of samples.

Log weights (..., Q), in nats, are evaluated at the nodes of a rule for the noise, N(0, I) in one or two dimensions. For
K draws S = (1/K) sum_k w_k / c with any constant c > 0, Frullani's integral log S = ∫ (e^{-t} - e^{-tS}) dt/t and t =
e^u give

    E log (1/K) sum_k w_k = log c + ∫_R [exp(-e^u) - phi(e^u/K)^K] du,    phi(t) = E_q exp(-t w/c).

The bound is IWAE's (Burda et al., 2016); applied to w^{1-alpha} and divided by 1 - alpha it is VR-IWAE's (Daudel et
al., 2023). Everything is differentiable, so the exact gradient follows by autograd.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """E h(eps) ~ sum_i weights_i h(nodes_i) for eps ~ N(0, I): nodes (Q, dimension), weights (Q,) of sum one."""

    nodes: Tensor
    weights: Tensor


def _tensor_rule(nodes: Tensor, weights: Tensor, dimension: int) -> Rule:
    if dimension not in {1, 2}:
        raise ValueError(f"A tensor grid needs 1 or 2 latent dimensions, not {dimension}.")
    if dimension == 1:
        return Rule(nodes[:, None], weights)
    return Rule(torch.cartesian_prod(nodes, nodes), torch.outer(weights, weights).flatten())


def gauss_hermite(points: int, dimension: int = 1, dtype: torch.dtype = torch.float64) -> Rule:
    """Gauss-Hermite: exact for polynomials of degree 2 points - 1 in each dimension.

    Returns:
        The rule of one dimension or two, with points ** dimension nodes: best for smooth integrands, such as one
        draw's log weight or its gradient under a smooth decoder.

    >>> rule = gauss_hermite(3)
    >>> round(float(rule.weights @ rule.nodes[:, 0] ** 4), 12)
    3.0
    """
    order = torch.arange(1, points, dtype=torch.float64, device="cpu")
    jacobi = torch.diag(order.sqrt(), 1)
    nodes, vectors = torch.linalg.eigh(jacobi + jacobi.mT)  # Golub & Welsch, 1969
    return _tensor_rule(nodes.to(dtype), vectors[0].square().to(dtype), dimension)


def trapezoid(points: int, dimension: int = 1, radius: float = 9.0, dtype: torch.dtype = torch.float64) -> Rule:
    """The trapezoid rule on [-radius, radius]: geometric convergence for analytic integrands.

    Returns:
        The rule of one dimension or two, with points ** dimension nodes: best under `importance_bound`, whose
        integrands resemble steps for large t, where Gauss-Hermite is slow. A radius of 9 leaves 2e-19 of the
        density.
    """
    nodes = torch.linspace(-radius, radius, points, dtype=torch.float64, device="cpu")
    weights = torch.softmax(-nodes.square() / 2, 0)
    return _tensor_rule(nodes.to(dtype), weights.to(dtype), dimension)


def expectation(integrand: Callable[[Tensor], Tensor], rule: Rule) -> Tensor:
    """E h(eps) for eps ~ N(0, I): the exact ELBO, or its gradient, of any decoder with one or two latents.

    Returns:
        (...), of an integrand from nodes (Q, dimension) to (Q, ...); differentiable in whatever that depends on.

    >>> round(float(expectation(lambda eps: eps[:, 0].exp(), gauss_hermite(20))), 6)  # e^{1/2}
    1.648721
    """
    return torch.tensordot(rule.weights, integrand(rule.nodes), 1)


def log_evidence(log_weights: Tensor, rule: Rule) -> Tensor:
    """Log p(x) = log E_q w in nats, (...), the limit of every bound with alpha < 1 as K grows."""
    return (log_weights + rule.weights.log()).logsumexp(-1)


def elbo(log_weights: Tensor, rule: Rule) -> Tensor:
    """The ELBO E_q log w in nats, (...): VR-IWAE at alpha = 1, any K, and IWAE at K = 1."""
    return log_weights @ rule.weights


def importance_bound(log_weights: Tensor, rule: Rule, samples: float, alpha: float = 0.0, points: int = 320) -> Tensor:
    """The exact VR-IWAE bound E log[(1/K) sum_k w_k^{1-alpha}] / (1-alpha), IWAE's at alpha = 0; `elbo` is its limit.

    The trapezoid rule of so many points in u errs by about exp(-pi^2 / h), h the spacing: below 1e-12 while the weights
    within the rule span less than e^60 or so; raise `points` beyond. Peak memory is points * Q * batch numbers.

    Returns:
        (...), in nats, differentiable. K need not be an integer; prefer `trapezoid` for the latents.

    Raises:
        ValueError: if K < 1 or alpha lies outside [0, 1).

    >>> rule = trapezoid(101)
    >>> wide = -rule.nodes[:, 0] ** 2  # log w = -eps^2
    >>> [round(float(importance_bound(wide, rule, K)), 4) for K in (1, 10, 1e6)], -round(math.log(3) / 2, 4)
    ([-1.0, -0.5676, -0.5493], -0.5493)
    """
    if not samples >= 1 or not 0 <= alpha < 1:
        raise ValueError(f"The bound needs K >= 1 and 0 <= alpha < 1, not K = {samples}, alpha = {alpha}.")
    log_q = rule.weights.log()
    tempered = (1 - alpha) * log_weights
    scale = (tempered + log_q).logsumexp(-1, keepdim=True).detach()  # c: any constant serves
    ratios = tempered - scale
    left, right = _range(ratios.detach(), log_q, samples)
    fraction = torch.linspace(0, 1, points, dtype=ratios.dtype, device=ratios.device)
    u = left + (right - left) * fraction  # (..., U)
    t = u.exp()
    phi = (-t.unsqueeze(-1) / samples @ ratios.exp().unsqueeze(-2)).exp() @ rule.weights  # phi(t / K), (..., U)
    integrand = (-t).exp() - phi**samples  # phi stays above e^-60, see `_range`: its powers have all derivatives
    width = ((right - left) / (points - 1)).squeeze(-1)
    return (scale.squeeze(-1) + integrand.sum(-1) * width) / (1 - alpha)


def _range(ratios: Tensor, log_q: Tensor, samples: float) -> tuple[Tensor, Tensor]:
    # Where the integrand exceeds 1e-16: by Jensen it is below e^u; far right the lightest weight decides.
    lightest = ratios.masked_fill(log_q < math.log(1e-17), math.inf).amin(-1, keepdim=True)
    right = (math.log(40 * samples) - lightest).clamp(min=4.0)
    return torch.full_like(right, math.log(1e-16)), right
