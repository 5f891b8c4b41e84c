"""Two-sided laws: what a correct run does, not only what it may not exceed.

Steps are gamma_k on x_k = x_{k-1} - gamma_k g_k; G_k = E|grad f(x_{k-1})|^2; T_n the mean of G_1 .. G_n; arguments are
named as those of `envelopes`. Derivations are in the docstrings. Signal-to-noise laws hold for many samples K and
conditionally on the data batch: under minibatch sampling a part of the variance, that of the data, does not fall with
K.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vaebench.support.statistics import student_quantile
from vaebench.theory.series import Array, as_array, by_parts, inverse_sqrt_steps


def mean_squared_gradient(
    steps: ArrayLike, values: ArrayLike, curved_noise: ArrayLike, curved_gradient: ArrayLike
) -> Array:
    """The second-order identity for T_n, equal up to O(gamma^2) where a bound would be one-sided.

    Taylor: E f(x_k) = E f(x_{k-1}) - gamma_k G_k + (gamma_k^2/2) E[tr(H_k Sigma_k) + grad' H_k grad] + O(gamma^3);
    divide by gamma_k and sum. The curved noise tr(H Sigma) and the curved gradient grad' H grad are at x_{k-1}.

    Returns:
        T_n = (1/n) {sum (f(x_{k-1}) - f(x_k)) / gamma_k + (1/2) sum gamma_k [tr(H_k Sigma_k) + grad' H_k grad]} for
        every horizon, (..., n).
    """
    gamma, curved = as_array(steps), as_array(curved_noise) + as_array(curved_gradient)
    total = by_parts(gamma, values) + np.cumsum(gamma * curved, -1) / 2
    return total / np.arange(1, gamma.shape[-1] + 1)


def mean_squared_gradient_along(steps: ArrayLike, values: ArrayLike, drawn: ArrayLike, exact: ArrayLike) -> Array:
    """The same identity with the curvature read off the path, where exact gradients are known and no Hessian is.

    A step moves by -gamma_k g_k, so that (grad f(x_{k-1}) - grad f(x_k)) / gamma_k = H g_k up to O(gamma), and
    g_k' H g_k has the expectation tr(H Sigma) + grad' H grad if g_k is unbiased. By the trapezoid rule the error in f
    is of the third order.

    Args:
        steps: gamma_k, (n,).
        values: f(x_0) .. f(x_n), (..., n + 1).
        drawn: g_1 .. g_n, (..., n, p).
        exact: grad f(x_0) .. grad f(x_n), (..., n + 1, p).

    Returns:
        T_n for every horizon, (..., n).

    >>> x = [1.0, 0.9]  # f = x^2 / 2, one step of 0.1 along the gradient
    >>> mean_squared_gradient_along([0.1], [0.5 * one**2 for one in x], [[1.0]], [[one] for one in x]).round(12)
    array([1.])
    """
    gamma, gradient = as_array(steps), as_array(exact)
    curved = (as_array(drawn) * (gradient[..., :-1, :] - gradient[..., 1:, :])).sum(-1) / gamma
    return mean_squared_gradient(gamma, values, curved, 0.0)


class NoiseDominated(NamedTuple):
    """G_k, T_n and the limit C tr(H Sigma) / sqrt(n) of T_n for SGD from a minimum, at every horizon, (n,) each."""

    squared_gradient: Array
    mean: Array
    limit: Array


def noise_dominated(hessian: ArrayLike, covariance: ArrayLike, scale: float, horizon: int) -> NoiseDominated:
    """SGD with gamma_k = C / sqrt(k) from a minimum, linearised there.

    Returns:
        The law by the Hessian H at the minimum and the covariance Sigma of the gradient there, (p, p). The
        covariance of x_k - x_* follows P_k = (I - gamma H) P_{k-1} (I - gamma H) + gamma^2 Sigma, P_0 = 0, and G_k
        = tr(H^2 P_{k-1}) -> (gamma_k / 2) tr(H Sigma): the rate n^{-1/2} is attained. Only the diagonal of P in the
        eigenbasis of H is needed.

    >>> law = noise_dominated([[2.0]], [[3.0]], 0.1, 10_000)
    >>> round(float(law.mean[-1] / law.limit[-1]), 2)
    1.05
    """
    curvature, basis = np.linalg.eigh(as_array(hessian))
    noise = np.einsum("ji,jk,ki->i", basis, as_array(covariance), basis)
    spread, expected = np.zeros_like(curvature), np.empty(horizon)
    steps = inverse_sqrt_steps(scale, horizon)
    for k, step in enumerate(steps):
        expected[k] = curvature**2 @ spread
        spread = (1 - step * curvature) ** 2 * spread + step**2 * noise
    n = np.arange(1, horizon + 1)
    limit = scale * (curvature @ noise) / np.sqrt(n)
    return NoiseDominated(expected, np.cumsum(expected) / n, limit)


def adam_fixed_point(
    third_moment: ArrayLike, second_moment: ArrayLike, betas: tuple[float, float] = (0.9, 0.999)
) -> Array:
    """The gradient at which Adam with fixed betas comes to rest: not zero under skewed noise.

    As steps vanish x settles where E[m / sqrt(v)] = 0; to first order in 1 - b2, expanding 1/sqrt(v) about V = E g^2.

    Returns:
        grad_j = kappa mu3_j / (2 V_j), kappa = (1-b1)(1-b2) / (1 - b1 b2), mu3 the third central moment of each
        coordinate of the noise; its square is a floor for |grad f|^2.

    >>> float(adam_fixed_point(8.0, 1.0, (0.9, 0.99)).round(4))
    0.0367
    """
    b1, b2 = betas
    return (1 - b1) * (1 - b2) / (1 - b1 * b2) * as_array(third_moment) / (2 * as_array(second_moment))


class Exponents(NamedTuple):
    """Log-log slopes of |E g| and of the variance of g in K, the number of importance samples, as K grows."""

    signal: float
    variance: float

    @property
    def snr(self) -> float:
        """Slope of |E g| / sd g."""
        return self.signal - self.variance / 2


def importance_exponents(estimator: str, block: str, alpha: float = 0.0) -> Exponents:
    """Slopes in K of the signal, variance and signal-to-noise ratio of an estimator's encoder or decoder block.

    In B, independent replicates of a fixed data batch, every variance has slope -1 and every ratio +1/2. Sources:
    Rainforth et al. (2018) for IWAE, Tucker et al. (2019) for the doubly reparameterised encoder, Daudel et al. (2023)
    for alpha > 0.

    Returns:
        The slopes; the estimators "pathwise", "doubly_reparameterized" and "sticking_the_landing" (biased for K > 1
        unless alpha = 1) differ in the encoder only.

    Raises:
        ValueError: if no law is recorded for the estimator or the block.

    >>> [importance_exponents(name, "encoder").snr for name in ("pathwise", "doubly_reparameterized")]
    [-0.5, 0.5]
    """
    known = {"pathwise": Exponents(-1, -1), "doubly_reparameterized": Exponents(-1, -3)}
    lasting = Exponents(0, -1)  # the signal does not vanish: averages of K terms
    if block not in {"encoder", "decoder"} or estimator not in {*known, "sticking_the_landing"}:
        raise ValueError(f"No law is recorded for estimator {estimator!r} and block {block!r}.")
    if block == "decoder" or alpha > 0:
        return lasting
    return known.get(estimator, lasting)


def importance_gap(relative_variance: ArrayLike, samples: ArrayLike) -> Array:
    """The bias Var_q(w / p(x)) / (2 K) + O(1/K^2) of IWAE in nats, log p(x) - L_K (Maddison et al., 2017)."""
    return as_array(relative_variance) / (2 * as_array(samples))


def loglog_slope(abscissa: ArrayLike, ordinate: ArrayLike) -> Array:
    """Least-squares slope of log y (..., n) against log x (n,), both positive.

    Returns:
        (...). No error: running means are correlated in n, so take it over seeds (`lower_limit`).

    >>> float(loglog_slope([1, 10, 100], [5, 0.5, 0.05]).round(6))
    -1.0
    """
    x = np.log(as_array(abscissa))
    centred = x - x.mean()
    return np.log(as_array(ordinate)) @ centred / (centred @ centred)


def lower_limit(samples: ArrayLike, false_alarm: float = 1e-4) -> float:
    """One-sided t limit mean - t_{S-1} se of a number per seed: below the expectation but for the false-alarm rate."""
    values = as_array(samples)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() + student_quantile(false_alarm, len(values) - 1) * error)
