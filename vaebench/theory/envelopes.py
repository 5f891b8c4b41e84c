"""Bounds on the squared gradients of SGD: one function per inequality.

For f with L-Lipschitz gradient, steps gamma_k and E|g_k - grad_k|^2 <= sigma^2, the descent lemma gives

    gamma_k (1 - L gamma_k / 2) G_k <= a_{k-1} - a_k + (L/2) gamma_k^2 sigma^2,                         (*)

G_k = E|grad f(x_{k-1})|^2, a_k = E f(x_k) - f_*. All below are sums of (*); T_n = (1/n) sum_{k<=n} G_k is the expected
squared gradient at a uniformly chosen iterate, the quantity of Surendran, Godichon-Baggioni & Le Corff (2025) and of
Ghadimi & Lan (2013). Nothing here bounds the last iterate: (*) does not.

Arguments are the same everywhere. `steps` are gamma_1 .. gamma_n, `squared_gradients` |grad f(x_{k-1})|^2, (..., n),
`values` f(x_0) .. f(x_n), (..., n + 1), in nats; `smoothness` is L, `noise` sigma^2, `initial_gap` a_0 and `gap` D >=
max_k a_k; `scale` is C of gamma_k = C / sqrt(k) and `horizon` n. Arrays have the step on their last axis and any
leading (seed) axes. The sides are linear in what is recorded, so evaluate per seed and test the mean of `margin`. Every
bound and both sides of every inequality are returned for each horizon 1 .. n.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from vaebench.theory.series import Array, Inequality, as_array, by_parts, inverse_sqrt_steps

TWO = math.nextafter(2, 0)  # strictly below two


def _require(smoothness: float, largest_step: float, limit: float) -> None:  # also refuses NaN
    product = smoothness * largest_step
    if not product <= limit:
        values = f"L = {smoothness:g} and C = {largest_step:g} give L C = {product:g}"
        raise ValueError(f"The inequality needs L C <= {limit:g}, but {values}.")


def weighted(
    steps: ArrayLike,
    squared_gradients: ArrayLike,
    values: ArrayLike,
    smoothness: float,
    noise: ArrayLike,
    minimum: float | None = None,
) -> Inequality:
    """(A-w): the mean of G_k weighted by w_k = gamma_k (1 - L gamma_k / 2); telescoped descent lemma, any steps.

    Returns:
        Both sides of sum w_k G_k / sum w_k <= [f(x_0) - f(x_n) + (L/2) sum gamma_k^2 sigma_k^2] / sum w_k; a
        `minimum`, if given, stands for f(x_n): weaker, and needs only f(x_0).

    Raises:
        ValueError: if L max gamma >= 2, where the weights are not positive.
    """
    gamma, g, value = as_array(steps), as_array(squared_gradients), as_array(values)
    _require(smoothness, float(gamma.max()), TWO)
    weight = gamma * (1 - smoothness * gamma / 2)
    total = np.cumsum(weight, -1)
    paid = np.cumsum(np.broadcast_to(smoothness / 2 * gamma**2 * as_array(noise), g.shape), -1)
    end = value[..., 1:] if minimum is None else minimum
    left = np.cumsum(weight * g, -1) / total
    return Inequality(left, (value[..., :1] - end + paid) / total)


def gamma_weighted(
    steps: ArrayLike, squared_gradients: ArrayLike, initial_gap: float, smoothness: float, noise: float
) -> Inequality:
    """(A-gamma): the mean of G_k weighted by gamma_k; (*) with 1 - L gamma_k / 2 >= 1 - L gamma_1 / 2.

    Returns:
        Both sides of sum gamma_k G_k / sum gamma_k <= [a_0 + (L/2) sigma^2 sum gamma_k^2] / [(1 - L gamma_1 / 2)
        sum gamma_k].

    Raises:
        ValueError: if L max gamma >= 2.
    """
    gamma = as_array(steps)
    _require(smoothness, float(gamma.max()), TWO)
    total = np.cumsum(gamma)
    paid = smoothness / 2 * noise * np.cumsum(gamma**2)
    left = np.cumsum(gamma * as_array(squared_gradients), -1) / total
    return Inequality(left, (initial_gap + paid) / ((1 - smoothness * gamma.max() / 2) * total))


def uniform_log(initial_gap: float, scale: float, smoothness: float, noise: float, horizon: int) -> Array:
    """(A-u): T_n for gamma_k = C / sqrt(k), the rate n^{-1/2} log n of Surendran et al. (2025).

    Returns:
        The bound [a_0 / C + (L/2) C sigma^2 H_n] / [sqrt(n) (1 - L C / (2 sqrt(n)))], H_n the harmonic number.

    Raises:
        ValueError: if L C > 1, where the weights of (A-w) need not decrease.

    >>> uniform_log(1.0, 0.1, 2.0, 3.0, 4).round(3)
    array([11.444,  7.952,  6.464,  5.592])
    """
    _require(smoothness, scale, 1)
    n = np.arange(1, horizon + 1)
    numerator = initial_gap / scale + smoothness / 2 * scale * noise * np.cumsum(1 / n)
    return numerator / (np.sqrt(n) * (1 - smoothness * scale / (2 * np.sqrt(n))))


def largest_gap(initial_gap: float, scale: float, smoothness: float, noise: float, horizon: int) -> float:
    """The bound a_0 + (L/2) sigma^2 C^2 H_n on max_{k<=n} a_k that (*) itself gives.

    Returns:
        D for `uniform_bounded` and `biased` when no better bound on E f is known.

    Raises:
        ValueError: if L C >= 2.
    """
    _require(smoothness, scale, TWO)
    return initial_gap + smoothness / 2 * noise * scale**2 * float(np.sum(1 / np.arange(1, horizon + 1)))


def uniform_bounded(gap: float, scale: float, smoothness: float, noise: float, horizon: int) -> Array:
    """(B-u): T_n without the logarithm, where a_k <= D for all k; (*) over gamma_k, summed by parts.

    Returns:
        The bound [D / gamma_n + (L/2) sigma^2 sum gamma_k] / [n (1 - L C / 2)], which is at most (D / C + L C
        sigma^2) / [sqrt(n) (1 - L C / 2)].

    Raises:
        ValueError: if L C >= 2.
    """
    _require(smoothness, scale, TWO)
    gamma, n = inverse_sqrt_steps(scale, horizon), np.arange(1, horizon + 1)
    return (gap / gamma + smoothness / 2 * noise * np.cumsum(gamma)) / (n * (1 - smoothness * scale / 2))


def uniform_telescoped(
    steps: ArrayLike, squared_gradients: ArrayLike, values: ArrayLike, smoothness: ArrayLike, noise: ArrayLike
) -> Inequality:
    """(C-u): the uniform mean, telescoped, with per-step constants; the tightest bound, without f_*, for any steps.

    Returns:
        Both sides of (1/n) sum (1 - L_k gamma_k / 2) G_k <= (1/n) {sum (f(x_{k-1}) - f(x_k)) / gamma_k + (1/2) sum
        gamma_k L_k sigma_k^2}. L_k, on the segment of step k, and sigma_k^2, at x_{k-1}, are numbers, (n,) or (...,
        n).
    """
    gamma, g, curve = as_array(steps), as_array(squared_gradients), as_array(smoothness)
    n = np.arange(1, gamma.shape[-1] + 1)
    left = np.cumsum((1 - curve * gamma / 2) * g, -1) / n
    paid = np.cumsum(np.broadcast_to(gamma * curve * as_array(noise), g.shape), -1) / 2
    return Inequality(left, (by_parts(gamma, values) + paid) / n)


def biased(gap: float, scale: float, smoothness: float, noise: float, squared_bias: ArrayLike, horizon: int) -> Array:
    """(Bias): T_n when E[g_k | past] = grad_k + b_k; (*) with <grad, grad + b> completed to squares.

    Returns:
        The bound [2 D / gamma_n + L sigma^2 sum gamma_k] / n + (1/n) sum E|b_k|^2, gamma_k = C / sqrt(k), sigma^2
        about the biased mean, E|b_k|^2 a number or one per step. It does not vanish unless the bias does.

    Raises:
        ValueError: if L C > 1.
    """
    _require(smoothness, scale, 1)
    gamma, n = inverse_sqrt_steps(scale, horizon), np.arange(1, horizon + 1)
    floor = np.cumsum(np.broadcast_to(as_array(squared_bias), n.shape)) / n
    return (2 * gap / gamma + smoothness * noise * np.cumsum(gamma)) / n + floor
