"""Probes: what is measured of a gradient estimator or a loss surface, with its standard error.

Probes of gradients work on `Moments`, gathered once from R independent replicates (`vaebench.measures.moments`), and
can be asked about some parameters only: `names` is one of `parameter_groups`, by default all. Where a probe takes
parameters, the module's own are the default; data are (N, *event), generators on the device of the model.
"""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vjp

from vaebench.gradients.estimators import exact
from vaebench.gradients.loss import Loss, Parameters, loss_function, own_parameters
from vaebench.gradients.trial import check_loss, require_trainable
from vaebench.measures.jackknife import Statistic, Sums, jackknife, jackknife_skewness
from vaebench.measures.moments import Moments
from vaebench.models import as_input
from vaebench.support.layers import like_parameters
from vaebench.support.skewness import Skewed
from vaebench.support.statistics import Estimate, Interval, log_interval, stretched


def _unbiased_square(sums: Sums) -> Tensor:
    return (sums.total - sums.squares) / (sums.number * (sums.number - 1))


def _trace_variance(sums: Sums) -> Tensor:
    return (sums.squares - sums.total / sums.number) / (sums.number - 1)


def _square_over_variance(sums: Sums) -> Tensor:
    return _unbiased_square(sums) / _trace_variance(sums)


def grad_sq(moments: Moments, names: Collection[str] | None = None) -> Estimate:
    """|E g|^2 by the U-statistic (|sum g|^2 - sum |g|^2) / (R (R - 1)), unbiased for independent replicates.

    Of `fresh` replicates it estimates |grad f|^2, f the loss over the data; it may be negative. Other replicates give
    other things, with sigma^2_data the trace of the covariance, over examples, of their expected gradients: one batch
    (`conditional`), the squared gradient of that batch's own loss, in the mean over batches sigma^2_data / B too much;
    disjoint minibatches of one epoch (`epochwise`), sigma^2_data / (N - 1) too little, for two of them have covariance
    -Cov / (N - 1). The mean of |g|^2 over minibatches, on which published code often relies, is |grad f|^2 +
    sigma^2_data / B + the noise's part: it has a floor.

    Returns:
        Value and standard error, the jackknife's less what it counts twice: Var U is 4 grad' Cov grad / R
        + 2 tr(Cov^2) / (R (R - 1)), and of the second part, all that is left at zero gradient, the jackknife sees
        the double. R >= 16 for the error to be trusted.
    """
    return _at_null(jackknife(moments, _unbiased_square, names), _null_variance(moments, names))


def _null_variance(moments: Moments, names: Collection[str] | None) -> float:
    """The variance of `grad_sq` where the gradient is zero."""
    return 2 * moments.squared_covariance(names) / (moments.count * (moments.count - 1))


def _at_null(found: Estimate, null: float) -> Estimate:
    return Estimate(found.value, math.sqrt(max(found.error**2 - null, null)))


def gradient_variance(moments: Moments, names: Collection[str] | None = None) -> Estimate:
    """Trace of the covariance of one gradient, unbiased.

    Returns:
        Value and standard error: the jackknife's, or that of normal gradients with this covariance,
        sqrt(2 tr(Cov^2) / (R - 1)), if it is larger. For an interval use `variance_limits`.
    """
    found = jackknife(moments, _trace_variance, names)
    normal = 2 * moments.squared_covariance(names) / (moments.count - 1)
    return Estimate(found.value, max(found.error, math.sqrt(normal)))


def skewed_variance(moments: Moments, names: Collection[str] | None = None) -> Skewed:
    """`gradient_variance` with the skewness of the jackknife's pseudo-values."""
    return Skewed(*gradient_variance(moments, names), _skewness(moments, _trace_variance, names))


def skewed_snr(moments: Moments, names: Collection[str] | None = None) -> Skewed:
    """|E g|^2 / tr Cov g, unbiased where it is small, with its error and skewness; no number without variance."""
    if not gradient_variance(moments, names).value > 0:
        return Skewed(math.nan, math.inf, 0.0)
    return Skewed(*_squared_snr(moments, names), _skewness(moments, _square_over_variance, names))


def _skewness(moments: Moments, statistic: Statistic, names: Collection[str] | None) -> float:
    return jackknife_skewness(moments, statistic, names) / math.sqrt(moments.groups)


def variance_limits(moments: Moments, names: Collection[str] | None = None) -> Interval:
    """The 95 % interval of `gradient_variance`: `log_interval` with the skewness of the jackknife's pseudo-values."""
    skewness = jackknife_skewness(moments, _trace_variance, names)
    return log_interval(gradient_variance(moments, names), moments.groups - 1, skewness)


def snr_limits(moments: Moments, names: Collection[str] | None = None) -> Interval:
    """An interval of `snr` that covers it with 0.95 where the signal is clear, and with more where it is weak.

    With r = U / V and its error e, the root of Student's limits of r, stretched along the long tail. U is about the
    square of a normal variable X, and its error rises and falls with it: (X + t s)^2 is U + t e + t^2 e^2 / (4 U). So
    the upper limit has t^2 e^2 / (2 max(r, e)) more. Simulated coverages stand in `tests/test_coverage.py`.

    Returns:
        The limits, of a positive trace variance; the lower one is 0 where the signal is not told from none.
    """
    value, error = _squared_snr(moments, names)
    below, above = stretched(jackknife_skewness(moments, _square_over_variance, names), moments.groups - 1)
    more = (above * error) ** 2 / (2 * max(value, error)) if error > 0 else 0.0
    return Interval(*(math.sqrt(max(end, 0.0)) for end in (value - below * error, value + above * error + more)))


def _squared_snr(moments: Moments, names: Collection[str] | None) -> Estimate:
    """U / V, of a positive trace variance V."""
    null = _null_variance(moments, names) / gradient_variance(moments, names).value ** 2
    return _at_null(jackknife(moments, _square_over_variance, names), null)


def snr(signal: Moments, noise: Moments | None = None, names: Collection[str] | None = None) -> Estimate:
    """Signal-to-noise ratio |E g| / sqrt(tr Cov g) (Rainforth et al., 2018), as sqrt(max(U, 0) / trace variance).

    The variance is that of `noise`, by default of the signal's own moments: an estimator with the same expectation and
    less variance may lend the signal. |mean g|^2, in place of the unbiased U (`grad_sq`), would not fall below V / R.

    Returns:
        Value and standard error. With r = U / V and its error e, sqrt(r + e) - sqrt(r): e / (2 sqrt(r)) where the
        signal is clear, sqrt(e) where U is not positive, and never 0.
    """
    variance, square = gradient_variance(signal if noise is None else noise, names), grad_sq(signal, names)
    if variance.value <= 0:
        return Estimate(0.0, math.inf if square.error else 0.0)
    if noise is None:
        ratio = _squared_snr(signal, names)
    else:
        errors = square.error, square.value * variance.error / variance.value
        ratio = Estimate(square.value / variance.value, math.hypot(*errors) / variance.value)
    clipped, least = max(ratio.value, 0.0), math.sqrt(2 / (signal.count * (signal.count - 1)))
    error = ratio.error or (0.0 if clipped else least)  # of noise along one direction, the jackknife sees none
    return Estimate(math.sqrt(clipped), math.sqrt(clipped + error) - math.sqrt(clipped))


class Split(NamedTuple):
    """The trace variance of one gradient, in the part of the minibatch and the part of the noise.

    With minibatches of B, drawn with replacement, `data` is sigma^2_data / B, which no number of samples K
    lowers. `latent` is sigma^2_latent / (B K) at alpha = 1; below, it falls like that for large K only.
    """

    data: Estimate
    latent: Estimate


def gradient_split(moments: Moments, names: Collection[str] | None = None) -> Split:
    """Analysis of variance of `nested` replicates: unbiased estimates of both parts of the variance.

    Returns:
        Both parts, with jackknife standard errors over minibatches; the data part may come out negative. Within
        minibatches the mean square is the noise's part; the variance of the minibatches' means is the data's part,
        plus 1/M of the noise's, M the draws per minibatch. The moments were gathered with one group per minibatch.

    Raises:
        ValueError: if groups have one replicate.
    """
    inner = moments.group_size
    if inner < 2:
        raise ValueError("gradient_split needs 2 or more draws per minibatch; gather nested(...) by minibatch.")

    def within(s: Sums) -> Tensor:
        return (s.squares - s.groups / inner) / (s.number - s.number // inner)

    def between(s: Sums) -> Tensor:
        groups = s.number // inner
        variance = (s.groups - s.total / groups) / (inner**2 * (groups - 1))
        return variance - within(s) / inner

    return Split(jackknife(moments, between, names), jackknife(moments, within, names))


def exact_gradient(loss: Loss, data: Tensor, parameters: Parameters | None = None) -> dict[str, Tensor]:
    """Gradient by name of the full-data loss in closed form, for a `ConjugateModel` and alpha = 1."""
    closed = Loss(loss.model, exact, loss.objective)
    x = as_input(check_loss(closed, data), like_parameters(loss))
    require_trainable(closed)
    parameters = own_parameters(loss) if parameters is None else parameters
    unused = x.new_zeros(loss.objective.samples, len(x), loss.model.latents)
    return grad(loss_function(closed))(parameters, x, unused)


def squared_norm(gradient: Parameters, names: Collection[str] | None = None) -> float:
    """|g|^2 of a gradient by name, over `names` (default all): of `exact_gradient`, the exact value of `grad_sq`."""
    return float(sum(gradient[name].double().square().sum() for name in (gradient if names is None else names)))


def ess(weights: Tensor) -> Tensor:
    """Effective sample size 1 / sum_k w_k^2 of normalised weights (K, B); (B,) in [1, K]."""
    return 1 / weights.square().sum(0)


def top_curvature(
    function: Callable[[dict[str, Tensor]], Tensor],
    parameters: Parameters,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-4,
) -> float:
    """Largest |eigenvalue| of a scalar function's Hessian, by Lanczos on Hessian-vector products.

    The start is random, or of ones without a generator, which is on the CPU. The Hessian of a loss needs a surrogate
    that is the bound itself: `pathwise`, `analytic_kl` or `exact`, at fixed data and noise. The second derivative of
    any other surrogate means nothing.

    Returns:
        The smoothness constant of the function at this point, to a relative tolerance; NaN where a product overflows.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh  # a machine that only times gradients need not have it

    names, tensors = zip(*parameters.items(), strict=True)
    sizes = [tensor.numel() for tensor in tensors]
    first = tensors[0]
    pullback = vjp(grad(function), dict(parameters))[1]

    def product(vector: np.ndarray) -> np.ndarray:
        pieces = torch.from_numpy(vector.ravel()).to(first).split(sizes)
        (image,) = pullback({n: v.view_as(t) for n, v, t in zip(names, pieces, tensors, strict=True)})
        return torch.cat([image[n].flatten() for n in names]).double().cpu().numpy()

    total, start = sum(sizes), np.ones(sum(sizes))
    if generator is not None:
        start = torch.randn(total, generator=generator, dtype=torch.float32, device="cpu").double().numpy()
    image = product(start)
    if total == 1 or not np.isfinite(image).all():
        return float(np.abs(image / start).sum()) if total == 1 else float("nan")
    operator = LinearOperator((total, total), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    values = eigsh(operator, k=1, v0=start, tol=tolerance, return_eigenvectors=False)  # pyright: ignore[reportArgumentType]
    return float(np.abs(values).max())
