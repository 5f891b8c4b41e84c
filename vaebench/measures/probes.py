"""Probes: what is measured of a gradient estimator, a bound or a loss surface, with its standard error.

Probes of gradients work on `Moments`, gathered once from R replicates (`vaebench.measures.moments`), and can be asked
about some parameters only: `names` is one of `parameter_groups`.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vjp

from vaebench.gradients.estimators import Estimator, exact, pathwise
from vaebench.gradients.loss import Loss, Parameters, loss_function, own_parameters
from vaebench.gradients.trial import check_loss, require_trainable
from vaebench.measures.moments import Moments, Sums, jackknife
from vaebench.models import as_input
from vaebench.support.checks import positive_integer
from vaebench.support.layers import like_parameters
from vaebench.support.statistics import Estimate


def _unbiased_square(sums: Sums) -> Tensor:
    return (sums.total - sums.squares) / (sums.number * (sums.number - 1))


def _trace_variance(sums: Sums) -> Tensor:
    return (sums.squares - sums.total / sums.number) / (sums.number - 1)


def grad_sq(moments: Moments, names: Iterable[str] | None = None) -> Estimate:
    """|E g|^2 by the U-statistic (|sum g|^2 - sum |g|^2) / (R (R - 1)), unbiased for independent replicates.

    Of `fresh` replicates it estimates |grad f|^2, f the loss over the data; it may be negative. Other replicates
    give other things, with sigma^2_data the trace of the covariance, over examples, of their expected gradients:
    one batch (`conditional`), the squared gradient of that batch's own loss, in the mean over batches
    sigma^2_data / B too much; disjoint minibatches of one epoch (`epochwise`), sigma^2_data / (N - 1) too
    little, for two of them have covariance -Cov / (N - 1). The mean of |g|^2 over minibatches, on which
    published code often relies, is |grad f|^2 + sigma^2_data / B + the noise's part: it has a floor.

    Args:
        moments: of replicates.
        names: the parameters to count; default all.

    Returns:
        Value and standard error, the jackknife's less what it counts twice: Var U is 4 grad' Cov grad / R
        + 2 tr(Cov^2) / (R (R - 1)), and of the second part, all that is left at zero gradient, the jackknife sees
        the double. R >= 16 for the error to be trusted.
    """
    names = None if names is None else tuple(names)
    return _at_null(jackknife(moments, _unbiased_square, names), _null_variance(moments, names))


def _null_variance(moments: Moments, names: Iterable[str] | None) -> float:
    """The variance of `grad_sq` where the gradient is zero."""
    return 2 * moments.squared_covariance(names) / (moments.count * (moments.count - 1))


def _at_null(found: Estimate, null: float) -> Estimate:
    return Estimate(found.value, math.sqrt(max(found.error**2 - null, null)))


def gradient_variance(moments: Moments, names: Iterable[str] | None = None) -> Estimate:
    """Trace of the covariance of one gradient, unbiased.

    Args:
        moments: of independent replicates.
        names: the parameters to count; default all.

    Returns:
        Value and standard error: the jackknife's, or that of normal gradients with this covariance,
        sqrt(2 tr(Cov^2) / (R - 1)), if it is larger. For an interval use
        `vaebench.support.statistics.log_interval` with R - 1 degrees of freedom.
    """
    names = None if names is None else tuple(names)
    found = jackknife(moments, _trace_variance, names)
    normal = 2 * moments.squared_covariance(names) / (moments.count - 1)
    return Estimate(found.value, max(found.error, math.sqrt(normal)))


def snr(signal: Moments, noise: Moments | None = None, names: Iterable[str] | None = None) -> Estimate:
    """Signal-to-noise ratio |E g| / sqrt(tr Cov g) (Rainforth et al., 2018), as sqrt(max(U, 0) / trace variance).

    The square of |mean g|, in place of the unbiased U (`grad_sq`), would not fall below the trace variance / R.

    Args:
        signal: moments that give U. An estimator with the same expectation and less variance may lend them.
        noise: moments that give the variance; default the same.
        names: the parameters to count; default all.

    Returns:
        Value and standard error. With r = U / V and its error e, sqrt(r + e) - sqrt(r): e / (2 sqrt(r)) where the
        signal is clear, sqrt(e) where U is not positive, and never 0.
    """
    names = None if names is None else tuple(names)
    variance, square = gradient_variance(signal if noise is None else noise, names), grad_sq(signal, names)
    if variance.value <= 0:
        return Estimate(0.0, math.inf if square.error else 0.0)
    if noise is None:
        ratio = jackknife(signal, lambda s: _unbiased_square(s) / _trace_variance(s), names)
        ratio = _at_null(ratio, _null_variance(signal, names) / variance.value**2)
    else:
        errors = square.error, square.value * variance.error / variance.value
        ratio = Estimate(square.value / variance.value, math.hypot(*errors) / variance.value)
    clipped, least = max(ratio.value, 0.0), math.sqrt(2 / (signal.count * (signal.count - 1)))
    error = ratio.error or (
        0.0 if clipped else least
    )  # that of noise along one direction, where the jackknife sees none
    return Estimate(math.sqrt(clipped), math.sqrt(clipped + error) - math.sqrt(clipped))


class Split(NamedTuple):
    """The trace variance of one gradient, in the part of the minibatch and the part of the noise.

    With minibatches of B, drawn with replacement, `data` is sigma^2_data / B, which no number of samples K
    lowers. `latent` is sigma^2_latent / (B K) at alpha = 1; below, it falls like that for large K only.
    """

    data: Estimate
    latent: Estimate


def gradient_split(moments: Moments, names: Iterable[str] | None = None) -> Split:
    """Analysis of variance of `nested` replicates: unbiased estimates of both parts of the variance.

    Within minibatches the mean square is the noise's part; the variance of the minibatches' means is the data's
    part, plus 1/M of the noise's, M the draws per minibatch.

    Args:
        moments: of `nested` replicates, gathered with one group per minibatch.
        names: the parameters to count; default all.

    Returns:
        Both parts, with jackknife standard errors over minibatches; the data part may come out negative.

    Raises:
        ValueError: if groups have one replicate.
    """
    inner = moments.group_size
    if inner < 2:
        raise ValueError("gradient_split needs 2 or more draws per minibatch; gather nested(...) by minibatch.")
    names = None if names is None else tuple(names)

    def within(s: Sums) -> Tensor:
        return (s.squares - s.groups / inner) / (s.number - s.number // inner)

    def between(s: Sums) -> Tensor:
        groups = s.number // inner
        variance = (s.groups - s.total / groups) / (inner**2 * (groups - 1))
        return variance - within(s) / inner

    return Split(jackknife(moments, between, names), jackknife(moments, within, names))


def exact_gradient(loss: Loss, data: Tensor, parameters: Parameters | None = None) -> dict[str, Tensor]:
    """Gradient of the full-data loss in closed form, for a `ConjugateModel` and alpha = 1.

    Args:
        loss: its estimator is not used.
        data: (N, *event).
        parameters: where; default the module's own.

    Returns:
        Gradients by name.
    """
    closed = Loss(loss.model, exact, loss.objective)
    x = as_input(check_loss(closed, data), like_parameters(loss))
    require_trainable(closed)
    parameters = own_parameters(loss) if parameters is None else parameters
    unused = x.new_zeros(loss.objective.samples, len(x), loss.model.latents)
    return grad(loss_function(closed))(parameters, x, unused)


def squared_norm(gradient: Parameters, names: Iterable[str] | None = None) -> float:
    """|g|^2 of a gradient by name, over `names` (default all): of `exact_gradient`, the exact value of `grad_sq`."""
    return float(sum(gradient[name].double().square().sum() for name in (gradient if names is None else names)))


def ess(weights: Tensor) -> Tensor:
    """Effective sample size 1 / sum_k w_k^2 of normalised weights (K, B); (B,) in [1, K]."""
    return 1 / weights.square().sum(0)


def bound(
    loss: Loss,
    data: Tensor,
    draws: int,
    generator: torch.Generator,
    parameters: Parameters | None = None,
    batch_size: int = 1024,
    reported: Estimator = pathwise,
) -> Estimate:
    """The bound's value, averaged over the data, whatever the estimator: only log-weights enter.

    Args:
        loss: its model and objective.
        data: (N, *event).
        draws: M >= 2 independent draws of the noise of all data.
        generator: source of the noise, on the device of the model.
        parameters: where; default the module's own.
        batch_size: examples evaluated at once.
        reported: its surrogate is taken for the bound; of `pathwise`, `analytic_kl` and `exact` it is.

    Returns:
        Mean over draws in nats, and its standard error given the data.

    Raises:
        ValueError: if draws < 2.
    """
    if positive_integer("draws", draws) < 2:
        raise ValueError("draws must be at least 2 for a standard error, got 1.")
    values = bound_draws(Loss(loss.model, reported, loss.objective), data, draws, generator, parameters, batch_size)
    return Estimate(float(values.mean()), float(values.std() / draws**0.5))


def bound_draws(
    loss: Loss,
    data: Tensor,
    draws: int,
    generator: torch.Generator,
    parameters: Parameters | None = None,
    batch_size: int = 1024,
) -> Tensor:
    """What a surrogate is worth, averaged over the data, once for each draw of the noise of all data.

    Args:
        loss: minus the mean of the surrogate.
        data: (N, *event).
        draws: M.
        generator: source of the noise, on the device of the model.
        parameters: where; default the module's own.
        batch_size: examples evaluated at once.

    Returns:
        (M,), in nats.
    """
    data, value, like = check_loss(loss, data), loss_function(loss), like_parameters(loss)
    parameters = own_parameters(loss) if parameters is None else parameters
    totals = torch.zeros(draws, dtype=torch.float64, device=generator.device)
    with torch.no_grad():
        for draw in range(draws):
            for rows in data.split(batch_size):
                x = as_input(rows, like)
                noise = torch.randn(loss.noise_shape(len(x)), generator=generator, dtype=x.dtype, device=x.device)
                totals[draw] -= value(parameters, x, noise).double() * len(x)
    return totals / len(data)


def top_curvature(
    function: Callable[[dict[str, Tensor]], Tensor],
    parameters: Parameters,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-4,
) -> float:
    """Largest |eigenvalue| of a scalar function's Hessian, by Lanczos on Hessian-vector products.

    The Hessian of a loss needs a surrogate that is the bound itself: `pathwise`, `analytic_kl` or `exact`, at fixed
    data and noise. The second derivative of any other surrogate means nothing.

    Args:
        function: of the parameters, twice differentiable.
        parameters: where.
        generator: draws the start, on the CPU; default a start of ones.
        tolerance: relative, of the eigenvalue.

    Returns:
        The smoothness constant of the function at this point; NaN where a product overflows.
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

    total = sum(sizes)
    start = (
        np.ones(total)
        if generator is None
        else torch.randn(total, generator=generator, dtype=torch.float32, device="cpu").double().numpy()
    )
    image = product(start)
    if total == 1 or not np.isfinite(image).all():
        return float(np.abs(image / start).sum()) if total == 1 else float("nan")
    operator = LinearOperator((total, total), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    values = eigsh(operator, k=1, v0=start, tol=tolerance, return_eigenvectors=False)  # pyright: ignore[reportArgumentType]
    return float(np.abs(values).max())
