"""Smoothness and noise constants, certified or measured: two types, so that neither passes for the other.

A certified constant is proved from a description of the model; for deep networks it is far too large to assert with
(thousands of times the curvature met), so log it. A measured one comes from one run; an inequality checked with it is
conditional: given this smoothness and noise, it holds, and a violation means a biased gradient, another step, or an
underestimated constant.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vaebench.support.statistics import student_quantile


@dataclass(frozen=True)
class Certified:
    """A constant that is proved, and the argument that proves it."""

    value: float
    source: str

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True)
class Measured:
    """A constant that was seen on a run, its safety factor included, and how it was measured."""

    value: float
    source: str

    def __float__(self) -> float:
        return self.value


Constant = Certified | Measured


class Layer(NamedTuple):
    """A layer phi(W h + b), weights within a ball, with the soft clipping phi of a `sharpness` s into (low, high).

    The slope of (1/s) log((1 + e^{s(x-low)}) / (1 + e^{s(x-high)})) + low is in (0, tanh(s (high-low) / 4)], and
    |curvature| <= s/4. The norm bounds the spectral norm of W, the width is the number of outputs.
    """

    norm: float
    width: int
    low: float
    high: float
    sharpness: float


class Reach(NamedTuple):
    """Bounds on a function h of the parameters: on |h|, on |dh| / |d params| and on |d^2 h| / |d params|^2."""

    value: float
    first: float = 0.0
    second: float = 0.0


def propagate(layers: Sequence[Layer], reach: Reach) -> Reach:
    """Carry bounds of an input through layers, all of whose weights and biases are parameters, to their output's.

    Returns:
        Bounds in all parameters together. For u = W h + b, by Cauchy-Schwarz: |du|^2 <= |h|^2 + 1 + |W|^2 J^2 =:
        J_u^2 and |d^2 u| <= |W| K + J =: K_u (from 2 |dW| J |d rest| <= J |d params|^2); then for phi(u) the first
        derivative is at most slope J_u and the second (s/4) J_u^2 + slope K_u.
    """
    for layer in layers:
        slope = math.tanh(layer.sharpness * (layer.high - layer.low) / 4)
        first = math.sqrt(reach.value**2 + 1 + (layer.norm * reach.first) ** 2)
        second = layer.norm * reach.second + reach.first
        value = math.sqrt(layer.width) * max(abs(layer.low), abs(layer.high))
        reach = Reach(value, slope * first, layer.sharpness / 4 * first**2 + slope * second)
    return reach


class DeepGaussian(NamedTuple):
    """A deep Gaussian VAE: q = N(mu, diag e^l), p(x|z) = N(G(z), c^2 I), all layers soft-clipped.

    The trunk is shared by mu and l and may be empty; mean, log_variance and decoder have at least one layer each.
    `input_norm` is the largest |x|, `noise_variance` c^2, beta the KL weight.
    """

    trunk: Sequence[Layer]
    mean: Sequence[Layer]
    log_variance: Sequence[Layer]
    decoder: Sequence[Layer]
    input_norm: float
    noise_variance: float
    beta: float = 1.0


def certified_smoothness(model: DeepGaussian) -> Certified:
    """A smoothness constant of the negative averaged beta-ELBO over all weights within the layers' norms.

    A constant to log, never to assert with: every layer is taken at its worst at once, and the worst log-variance
    enters as e^{lmax}. It is some 7,000 times the largest curvature met on a net of 250 parameters with a modest range,
    and 10^14 times with the paper's (-20, 20), so that any run lies inside its envelope.

    Returns:
        L <= E[(J_G^2 + |x - G| K_G) / c^2] + beta {J_mu^2 + |mu| K_mu + (e^{lmax} J_l^2 + |e^l - 1| K_l) / 2}, in
        nats per squared parameter, where the decoder is fed J_z = J_mu + sd |eps| J_l / 2 and K_z = K_mu + sd |eps|
        (K_l / 2 + J_l^2 / 4), sd = e^{lmax/2}, |eps| has the chi law: the layerwise product bound, from triangle
        inequalities and Cauchy-Schwarz's alone.
    """
    from scipy import integrate, stats  # half a second, for this one function

    shared = propagate(model.trunk, Reach(model.input_norm))
    mean, log_variance = propagate(model.mean, shared), propagate(model.log_variance, shared)
    head = model.log_variance[-1]
    spread = math.exp(head.high / 2)

    def misfit(radius: float) -> float:
        scale = spread * radius
        first = mean.first + scale * log_variance.first / 2
        second = mean.second + scale * (log_variance.second / 2 + log_variance.first**2 / 4)
        out = propagate(model.decoder, Reach(mean.value + scale, first, second))
        error = model.input_norm + out.value
        return (out.first**2 + error * out.second) / model.noise_variance

    end = math.sqrt(head.width) + 12.0
    expected = integrate.quad(lambda r: misfit(r) * stats.chi.pdf(r, head.width), 0, end)[0]
    excess = math.sqrt(head.width) * max(abs(math.expm1(head.low)), abs(math.expm1(head.high)))
    divergence = mean.first**2 + mean.value * mean.second
    divergence += (math.exp(head.high) * log_variance.first**2 + excess * log_variance.second) / 2
    return Certified(expected + model.beta * divergence, "layerwise product bound")


def measured_smoothness(curvatures: ArrayLike, factor: float = 1.5) -> Measured:
    """The largest of curvatures met at checkpoints, times a safety factor, for their maximum is no supremum.

    Returns:
        L-hat.

    >>> float(measured_smoothness([1.0, 4.0, 2.0]))
    6.0
    """
    seen = np.asarray(curvatures, dtype=np.float64)
    return Measured(factor * float(seen.max()), f"{factor:g} x largest curvature of {seen.size} checkpoints")


def measured_noise(gradients: ArrayLike, mean: ArrayLike | None = None, level: float = 0.999) -> Measured:
    """An upper confidence limit on sigma^2 = E|g - E g|^2 from R >= 2 replicate gradients (R, p).

    Returns:
        The t limit of the mean of |g_r - mean|^2, with R/(R-1) where the mean (p,) is estimated. Replicates must be
        fresh in minibatch and noise; heavy tails make the limit optimistic.

    Raises:
        ValueError: if there are fewer than two replicates.
    """
    g = np.asarray(gradients, dtype=np.float64)
    count = len(g)
    if count < 2:
        raise ValueError(f"A confidence limit needs at least two replicates, not {count}.")
    squared = ((g - (g.mean(0) if mean is None else np.asarray(mean))) ** 2).sum(-1)
    if mean is None:
        squared = squared * count / (count - 1)
    error = squared.std(ddof=1) / math.sqrt(count)
    limit = squared.mean() + student_quantile(level, count - 1) * error
    return Measured(float(limit), f"upper {level:.1%} limit from {count} replicates")
