"""A-priori bounds for Adam, and the floor they keep.

They are in the convention of Défossez, Bottou, Bach & Usunier (2022): m = b1 m + g, v = b2 v + g^2, x -= alpha (1-b1)
sqrt((1-b2^k)/(1-b2)) m / sqrt(eps + v), under |g|_inf <= R - sqrt(eps) almost surely. The floor at fixed b2 exceeds the
trivial d R^2 for b1 = 0.9, b2 = 0.999, and Gaussian reparameterised gradients have no R: a largest gradient seen is not
a bound. See `ledger` for one that holds.

Names are those of `envelopes`: a_0 = f(x_0) - f_* is the initial gap, L the smoothness. Every function raises
ValueError unless 0 <= beta1 < beta2 < 1.
"""

import math
from typing import NamedTuple

import numpy as np

from vaebench.theory.series import Array, inverse_sqrt_steps


class AdamConstants(NamedTuple):
    """Adam's constants and the problem's.

    Decays 0 <= beta1 < beta2 < 1, epsilon inside the root (in squared gradient units), the bound R with |g|_inf <= R -
    sqrt(eps) almost surely, and the dimension d.
    """

    beta1: float
    beta2: float
    epsilon: float
    bound: float
    dimension: int

    @property
    def transient(self) -> float:
        """ln(1 + R^2 / ((1 - b2) eps)), the price of the first steps."""
        return math.log1p(self.bound**2 / ((1 - self.beta2) * self.epsilon))


def _price(m: AdamConstants, step: float, smoothness: float) -> float:
    # The constant E of Défossez et al. (2022), Theorems 2 and 4.
    d, r, slow = m.dimension, m.bound, 1 - m.beta2
    if m.beta1 == 0:
        return 4 * d * r**2 / math.sqrt(slow) + step * d * r * smoothness / slow
    ratio = 1 - m.beta1 / m.beta2
    curvature = step * d * r * smoothness * (1 - m.beta1) / (ratio * slow)
    noise = 12 * d * r**2 * math.sqrt(1 - m.beta1) / (ratio**1.5 * math.sqrt(slow))
    return curvature + noise + 2 * step**2 * d * smoothness**2 * m.beta1 / (ratio * slow**1.5)


def _ordered(moments: AdamConstants) -> None:
    if not 0 <= moments.beta1 < moments.beta2 < 1:
        given = f"beta1 = {moments.beta1}, beta2 = {moments.beta2}"
        raise ValueError(f"Adam's bounds need 0 <= beta1 < beta2 < 1, not {given}.")


def constant_step(initial_gap: float, step: float, smoothness: float, moments: AdamConstants, horizon: int) -> float:
    """(D): E|grad f(x_tau)|^2 at constant alpha (Défossez et al., 2022, Theorems 2 and 4).

    Returns:
        The bound 2 R a_0 / (alpha N') + E [ln(1 + R^2/((1-b2) eps)) / N' - (N/N') ln b2], N' = N - b1/(1-b1), N the
        horizon and alpha the step, where P(tau = j) is proportional to 1 - b1^{N-j}: uniform for b1 = 0.

    Raises:
        ValueError: also if the horizon is too short for N' > 0.
    """
    _ordered(moments)
    effective = horizon - moments.beta1 / (1 - moments.beta1)
    if effective <= 0:
        raise ValueError(f"N = {horizon} steps are too few for beta1 = {moments.beta1}: N must exceed b1/(1-b1).")
    decay = moments.transient - horizon * math.log(moments.beta2)
    start = 2 * moments.bound * initial_gap / (step * effective)
    return start + _price(moments, step, smoothness) * decay / effective


def decreasing_step(gap: float, scale: float, smoothness: float, moments: AdamConstants, horizon: int) -> Array:
    """(D'): T_n at alpha_k = C / sqrt(k) without momentum; (D)'s lemmas over alpha_k, summed by parts.

    Derived from Lemmas 5.1 and 5.2 of Défossez et al. (2022): a step lowers E f by at least gamma_k [G_k/(2R) - 2R
    u_k/sqrt(1-b2)] - L gamma_k^2 u_k/(2(1-b2)), u_k = E|g/sqrt(eps+v)|^2, and sum_{k<=n} u_k <= d (A + lam n). For
    beta1 > 0 no such bound is known to us.

    Returns:
        The bound (2R/n) {D sqrt(n)/C + d [A (2R/sqrt(1-b2) + L C/(2(1-b2))) + lam (2 R n/sqrt(1-b2) + L sum
        gamma_k/(2(1-b2)))]} for n = 1 .. horizon, A the transient, lam = -ln b2 and the gap D >= max_k E f(x_k) -
        f_*.

    Raises:
        ValueError: also if beta1 is not zero.
    """
    _ordered(moments)
    if moments.beta1 != 0:
        raise ValueError(f"The decreasing-step bound needs beta1 = 0, not beta1 = {moments.beta1}.")
    r, slow, n = moments.bound, 1 - moments.beta2, np.arange(1, horizon + 1)
    noise, curve = 2 * r / math.sqrt(slow), smoothness / (2 * slow)
    lasting = -math.log(moments.beta2) * (noise * n + curve * np.cumsum(inverse_sqrt_steps(scale, horizon)))
    once = moments.transient * (noise + curve * scale)
    return 2 * r / n * (gap * np.sqrt(n) / scale + moments.dimension * (once + lasting))


def floor(moments: AdamConstants) -> float:
    """What (D) and (D') leave at fixed beta2 as steps vanish and n grows, in units of squared gradients.

    >>> [round(floor(AdamConstants(beta1, 0.999, 1e-8, 1.0, 1)), 3) for beta1 in (0.0, 0.9)]
    [0.127, 3.849]

    Returns:
        4 d R^2 ln(1/b2) / sqrt(1-b2) for beta1 = 0, its counterpart in (D) otherwise.
    """
    _ordered(moments)
    return -_price(moments, 0.0, 0.0) * math.log(moments.beta2)
