"""One trial of a loss, before anything long is begun: what cannot be measured or trained is refused in one sentence.

Every refusal is a ValueError. Data are (N, *event), as `check_input` takes and returns them; models and torch's
generators are left as they were, bit for bit.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.models import VAE, LatentModel, as_input, check_input
from vaebench.models.distributions import Gaussian
from vaebench.support.layers import explaining, like_parameters
from vaebench.support.repeatable import preserved, require_repeatable

FEW = 3  # samples or rows, where more would show nothing more
ROUNDING = 1e5  # units in the last place by which two ways to one gradient may differ
COARSE = 0.5  # the same relative to the gradient, in half precision
OVER_MEMBERS = (0, 0, 0)  # parameters, rows and noise: what `vmap` runs over as a fleet trains
OVER_DRAWS = (None, 0, 0)  # likewise, where many gradients are drawn at the same parameters


def check_loss(loss: Loss, data: Any) -> Tensor:
    """Refuse a model, an estimator or data whose values would mean nothing. Synchronises: call it before a loop.

    The estimator is called twice on a few rows, with fixed noise.

    Returns:
        The data, as `check_input` returns them.

    Raises:
        ValueError: if the data do not fit; if a posterior, a likelihood or a surrogate has another shape than its
            contract says; if one of them fails, draws random numbers or changes the model.
    """
    model = loss.model
    if not (isinstance(model, nn.Module) and isinstance(model, LatentModel)):
        raise ValueError(
            f"The model must be a torch module with latents, posterior and likelihood, got a {type(model).__name__}."
        )
    data = check_input(model, data)
    x, noise = _few(loss, data)
    name = estimator_name(loss.estimator)
    normal = noise[:FEW, :, : model.latents]
    require_repeatable(model, lambda: _values(model, x, normal), f"The model ({type(model).__name__})")
    require_repeatable(model, lambda: _surrogate(loss, x, noise, name), name)
    return data


def check_gradient(loss: Loss, data: Any, over: tuple[int | None, int, int] = OVER_MEMBERS) -> Tensor:
    """Refuse, beside what `check_loss` refuses, a loss that cannot be differentiated under `torch.func.vmap`.

    Args:
        loss: the loss.
        data: (N, *event).
        over: the dimension of parameters, rows and noise that `vmap` is to run over.

    Returns:
        The data, as `check_input` returns them.

    Raises:
        ValueError: also if nothing is to be trained, gradients cannot be had here, or torch.func misses a parameter.
    """
    data = check_loss(loss, data)
    require_trainable(loss)
    require_differentiable(loss, *_few(loss, data), over)
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
    eps = torch.finfo(x.dtype).eps
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


def require_alike(losses: Sequence[Loss]) -> None:
    """Refuse losses whose models differ in more than trained values: a fleet calls the first with the values of all."""

    def layout(loss: Loss) -> dict[str, tuple]:
        kinds = {name: (t.shape, t.dtype, t.device) for name, t in loss.state_dict().items()}
        return kinds | {name: (*kinds[name], p.requires_grad) for name, p in loss.named_parameters()}

    def fixed(loss: Loss) -> list[Tensor]:
        return [*loss.buffers(), *(p for p in loss.parameters() if not p.requires_grad)]

    first = losses[0]
    for other in {id(loss.model): loss for loss in losses}.values():
        if layout(other) != layout(first) or not all(map(torch.equal, fixed(first), fixed(other))):
            raise ValueError(
                "The models of a fleet must have the same parameters by name, shape and dtype, and equal buffers and "
                "frozen parameters."
            )


def _few(loss: Loss, data: Tensor) -> tuple[Tensor, Tensor]:
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
    rows, latents = len(x), model.latents
    with explaining(model, "The posterior"):
        if isinstance(model, VAE):
            wanted = f"2 D = {2 * latents} numbers per example, means then log-variances, shape {(rows, 2 * latents)}"
            _require_shape("The encoder", model.encoder(x), (rows, 2 * latents), wanted)
        q = model.posterior(x)
        if not isinstance(q, Gaussian):
            raise ValueError(f"The posterior must be a Gaussian of mean and log_std, got a {type(q).__name__}.")
        for part, tensor in zip(("mean", "log_std"), q, strict=True):
            _require_shape(f"The posterior's {part}", tensor, (rows, latents), f"shape (B, D) = {(rows, latents)}")
        z = q.transport(noise)
    with explaining(model, "The likelihood"):
        wanted = (len(z), rows)
        value = model.likelihood(z).log_prob(x)
        _require_shape("The log-likelihood", value, wanted, f"one value per sample and example, (K, B) = {wanted}")
    return torch.cat([part.flatten() for part in (*q, value)])


def _require_shape(name: str, value: object, shape: tuple[int, ...], wanted: str) -> None:
    got = tuple(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
    if got != shape:
        raise ValueError(f"{name} must give {wanted}, got {got}.")


def _surrogate(loss: Loss, x: Tensor, noise: Tensor, name: str) -> Tensor:
    given = x.clone(), noise.clone()
    with torch.enable_grad():
        found = loss.estimator(loss.model, *given, loss.objective)
    if not all(map(torch.equal, given, (x, noise))):
        raise ValueError(f"{name} changes its x or its noise in place; work on a copy.")
    shape, samples = (len(x),), loss.objective.samples
    _require_shape(name, found, shape, f"one surrogate per example, shape (B,) = {shape} with K = {samples}")
    return found.detach()


def estimator_name(estimator: Estimator) -> str:
    """What messages call an estimator, as "Estimator 'mine'"."""
    return f"Estimator {getattr(estimator, '__name__', type(estimator).__name__)!r}"
