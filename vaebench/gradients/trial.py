"""One trial of a loss, before anything long is begun: what cannot be measured or trained is refused in one sentence.

Every refusal is a ValueError. Data are (N, *event), as `check_input` takes and returns them; models and torch's
generators are left as they were, bit for bit.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, Tried, loss_function, own_parameters
from vaebench.gradients.rounding import rounding_of
from vaebench.models import VAE, LatentModel, as_input, check_input
from vaebench.models.distributions import Gaussian
from vaebench.support.attributes import copy_of
from vaebench.support.layers import explaining, like_parameters
from vaebench.support.repeatable import preserved, require_repeatable

FEW = 3  # samples or rows, where more would show nothing more
ROUNDING = 1e5  # units in the last place by which two ways to one gradient may differ
COARSE = 0.5  # the same relative to the gradient, in half precision
OVER_MEMBERS = (0, 0, 0)  # parameters, rows and noise: what `vmap` runs over as a fleet trains
OVER_DRAWS = (None, 0, 0)  # likewise, where many gradients are drawn at the same parameters


def tried(loss: Loss, data: Any) -> Tried:
    """Try a loss once, at many members and at many draws, for functions that would try it at every call.

    It holds as long as nobody changes the model, but for the values of its parameters.

    Returns:
        The data, to be given in their place.
    """
    data = check_gradient(loss, data)
    require_differentiable(loss, *few_rows(loss, data), OVER_DRAWS)
    return Tried(loss, data)


def check_loss(loss: Loss, data: Any) -> Tensor:
    """Refuse a model, an estimator or data whose values would mean nothing. Synchronises: call it before a loop.

    The estimator is called twice on a few rows, with fixed noise; not if the data are `Tried` of this loss.

    Returns:
        The data, as `check_input` returns them.

    Raises:
        ValueError: if the data do not fit; if a posterior, a likelihood or a surrogate has another shape than its
            contract says; if one of them fails, draws random numbers or changes the model.
    """
    if isinstance(data, Tried):
        if data.of(loss):
            return data.data
        data = data.data
    model = loss.model
    if not (isinstance(model, nn.Module) and isinstance(model, LatentModel)):
        raise ValueError(
            f"The model must be a torch module with latents, posterior and likelihood, got a {type(model).__name__}."
        )
    data = check_input(model, data)
    x, noise = few_rows(loss, data)
    name = estimator_name(loss.estimator)
    normal = noise[:FEW, :, : model.latents]
    require_repeatable(model, lambda: _values(model, x, normal), f"The model ({type(model).__name__})")
    require_repeatable(model, lambda: _surrogate(loss, x, noise, name), name)
    return data


def check_gradient(loss: Loss, data: Any) -> Tensor:
    """Refuse, beside what `check_loss` refuses, a loss that cannot be differentiated under `torch.func.vmap`.

    Returns:
        The data, as `check_input` returns them.

    Raises:
        ValueError: also if nothing is to be trained, gradients cannot be had here, or torch.func misses a parameter.
    """
    data = check_loss(loss, data)
    require_trainable(loss)
    require_differentiable(loss, *few_rows(loss, data))
    return data


def check_replicates(loss: Loss, data: Any) -> Tensor:
    """Refuse, beside what `check_gradient` refuses, a loss that cannot be differentiated at many minibatches at once.

    That is what gates do, and more than training asks: some operations of torch, as those of recurrent layers, know
    batches of parameters and not batches of data. A model that cannot be copied is refused too, for gates look at
    copies.

    Returns:
        The data, as `check_input` returns them.

    Raises:
        ValueError: also if a gradient fails there, or a layer cannot be copied.
    """
    data = check_gradient(loss, data)
    assert isinstance(loss.model, nn.Module)
    copy_of(loss.model)
    require_differentiable(loss, *few_rows(loss, data), OVER_DRAWS)
    return data


def require_differentiable(
    loss: Loss, x: Tensor, noise: Tensor, over: tuple[int | None, int, int] = OVER_MEMBERS
) -> None:
    """Refuse a loss whose gradient under `vmap`, at a few rows and noise, cannot be had or is not autograd's."""
    parameters, model, name = own_parameters(loss), loss.model, estimator_name(loss.estimator)
    assert isinstance(model, nn.Module)
    stacked = parameters if over[0] is None else {n: p.unsqueeze(0) for n, p in parameters.items()}
    with preserved(model), torch.enable_grad():
        with explaining(model, name, "under torch.func.vmap, by which many gradients are taken at once,"):
            found = vmap(grad(loss_function(loss)), over)(stacked, x.unsqueeze(0), noise.unsqueeze(0))
        leaves = dict(loss.named_parameters())
        with explaining(model, name):
            expected = torch.autograd.grad(
                loss(x, noise), [leaves[n] for n in parameters], allow_unused=True, materialize_grads=True
            )
    eps = rounding_of(loss, x, noise)
    floor = ROUNDING / 100 * eps * torch.stack([plain.abs().max() for plain in expected]).max()
    for (n, mine), plain in zip(found.items(), expected, strict=True):
        off, size = (mine[0] - plain).abs().max(), plain.abs().max()
        if size.isfinite() and off.isfinite() and off > floor + min(COARSE, ROUNDING * eps) * size:
            raise ValueError(
                f"The gradient of {n.removeprefix('model.')!r} under torch.func is not that of autograd; use the "
                "parameter as an attribute of its layer, not through a copy or a closure."
            )


def require_trainable(loss: Loss) -> None:
    """Refuse a loss without gradients: all its parameters are frozen, or torch.inference_mode is on."""
    if torch.is_inference_mode_enabled():
        raise ValueError("Gradients cannot be had within torch.inference_mode; leave it, or use torch.no_grad there.")
    if not own_parameters(loss):
        raise ValueError(
            f"No parameter of {type(loss.model).__name__} is trained: all {len(list(loss.parameters()))} are frozen or "
            "empty; call requires_grad_() on those to train."
        )


def few_rows(loss: Loss, data: Tensor) -> tuple[Tensor, Tensor]:
    """A few rows, of a number that is not K, and noise for them: normal quantiles, for nothing may be drawn."""
    like, samples = like_parameters(loss), loss.objective.samples
    rows = 3 if samples == 2 else 2
    x = as_input(data[torch.arange(rows, device=data.device) % len(data)], like)
    shape = loss.noise_shape(rows)
    levels = torch.linspace(0, 1, math.prod(shape) + 2, dtype=torch.float64, device=like.device)[1:-1]
    return x, torch.special.ndtri(levels).to(like.dtype).view(shape)


@torch.no_grad()
def _values(model: LatentModel, x: Tensor, noise: Tensor) -> Tensor:
    """Everything that a model returns, side by side, once its shapes are as its contract says."""
    assert isinstance(model, nn.Module)
    rows, latents, given = len(x), model.latents, x.clone()
    with explaining(model, "The posterior"), _wide_enough(model, rows):
        q = model.posterior(x)
        if not isinstance(q, Gaussian):
            raise ValueError(f"The posterior must be a Gaussian of mean and log_std, got a {type(q).__name__}.")
        for part, tensor in zip(("mean", "log_std"), q, strict=True):
            _require_shape(f"The posterior's {part}", tensor, (rows, latents), f"shape (B, D) = {(rows, latents)}")
        _require_kept("The posterior", (x, given))
        z = q.transport(noise)
        drawn = z.clone()
    with explaining(model, "The likelihood"):
        wanted = (len(z), rows)
        value = model.likelihood(z).log_prob(x)
        _require_kept("The likelihood", (x, given), (z, drawn))
        _require_shape("The log-likelihood", value, wanted, f"one value per sample and example, (K, B) = {wanted}")
    return torch.cat([part.flatten() for part in (*q, value)])


@contextmanager
def _wide_enough(model: nn.Module, rows: int) -> Iterator[None]:
    """Refuse what the encoder of a `VAE` gives within, if it is no mean and log-variance of each example.

    Yields:
        Nothing.
    """

    def require(module: nn.Module, inputs: tuple, output: object) -> None:
        shape = rows, 2 * cast(VAE, model).latents
        wanted = f"2 D = {shape[1]} numbers per example, means then log-variances, shape {shape}"
        _require_shape("The encoder", output, shape, wanted)

    handles = [model.encoder.register_forward_hook(require)] if isinstance(model, VAE) else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _require_kept(name: str, *pairs: tuple[Tensor, Tensor]) -> None:
    """Refuse what works in place on what it is given: pairs of a tensor and of what it was."""
    if not all(torch.equal(*pair) for pair in pairs):
        raise ValueError(f"{name} changes what it is given in place (x, z or the noise); work on a copy.")


def _require_shape(name: str, value: object, shape: tuple[int, ...], wanted: str) -> None:
    got = tuple(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
    if got != shape:
        raise ValueError(f"{name} must give {wanted}, got {got}.")


def _surrogate(loss: Loss, x: Tensor, noise: Tensor, name: str) -> Tensor:
    given = x.clone(), noise.clone()
    with torch.enable_grad():
        found = loss.estimator(loss.model, *given, loss.objective)
    _require_kept(name, *zip((x, noise), given, strict=True))
    shape, samples = (len(x),), loss.objective.samples
    _require_shape(name, found, shape, f"one surrogate per example, shape (B,) = {shape} with K = {samples}")
    if not found.is_floating_point():
        raise ValueError(f"{name} must give real floating-point numbers, got {found.dtype}.")
    return found.detach()


def estimator_name(estimator: Estimator) -> str:
    """What messages call an estimator, as "Estimator 'mine'"."""
    return f"Estimator {getattr(estimator, '__name__', type(estimator).__name__)!r}"
