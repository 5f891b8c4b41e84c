"""What is asked of a model's layers before it is called, and how a message names the one that is to blame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
OWN_DRAWS = "draws or seeds random numbers of its own, and all noise must be an argument"
OTHER_RESULT = "gives another result when it is called again: it remembers its calls, or"
QUOTED = 200  # characters of another library's message


def like_parameters(model: nn.Module) -> Tensor:
    """A tensor with the dtype and on the device that a model's data and noise must have.

    Returns:
        The first parameter of floating point, trained or frozen; else the first such buffer.

    Raises:
        ValueError: if there is none, or it holds no numbers.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise ValueError(f"Parameter {name!r} has no shape yet; call the model once on data before you pass it.")
        if tensor.is_meta:
            raise ValueError(
                f"Parameter {name!r} is on the meta device and holds no numbers; make the model on 'cpu' or 'cuda'."
            )
    found = next((t for t in [*model.parameters(), *model.buffers()] if t.is_floating_point()), None)
    if found is None:
        raise ValueError(f"{type(model).__name__} has no parameter of floating point; there is nothing to measure.")
    return found


def describe(model: nn.Module, layer: nn.Module) -> str:
    """What a layer is called in a message: "Layer 'encoder.1' (Dropout)"."""
    name = next((name for name, module in model.named_modules() if module is layer), "")
    return f"Layer {name!r} ({type(layer).__name__})" if name else f"The model ({type(layer).__name__})"


def require_fixed_layers(model: nn.Module) -> None:
    """Refuse a batch normalisation that uses the batch, and a dropout at work: they mix rows or draw numbers."""
    for layer in model.modules():
        if isinstance(layer, BATCH_NORMS) and (layer.training or layer.running_mean is None):
            how = "in training mode" if layer.training else "without running statistics"
            what = "call model.eval(), or use" if layer.training and layer.running_mean is not None else "use"
            raise ValueError(
                f"{describe(model, layer)} is {how}, so an example's gradient would depend on the rest of its batch; "
                f"{what} LayerNorm or GroupNorm."
            )
        if isinstance(layer, DROPOUTS) and layer.training and layer.p > 0:
            raise ValueError(f"{describe(model, layer)} {OWN_DRAWS}; call model.eval(), or take it out.")


def own_draws(blamed: str, layer: nn.Module | None, drew: bool = True) -> str:
    """The sentence about a layer, or what else is blamed, that draws random numbers.

    Args:
        blamed: as `describe` calls it.
        layer: the layer, or None.
        drew: whether a generator is known to have moved; else only that two calls gave two results.

    Returns:
        The sentence.
    """
    remedy = "take it out" if layer else "use the noise it is given, or declare more by vaebench.gradients.noise_shape"
    return f"{blamed} {'' if drew else OTHER_RESULT + ' '}{OWN_DRAWS}; {remedy}."


@contextmanager
def explaining(model: nn.Module, name: str, where: str = "") -> Iterator[None]:
    """Errors of other code become one sentence that names the layer in which they occurred.

    Args:
        model: every module that is called within.
        name: what is to blame if it is no layer, as "Estimator 'mine'".
        where: it was called, as "under vmap", if that is to be said.

    Yields:
        Nothing.

    Raises:
        ValueError: in place of any other error, sys.exit included; one of this package's as it is.
        MemoryError: as it is.
        OutOfMemoryError: as it is.
        Warning: as it is.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, Warning):
        raise
    except SystemExit as broken:
        raise ValueError(_told(broken, model, name, where)) from broken
    except Exception as broken:
        ours = _innermost_package(broken) == __name__.partition(".")[0]
        if ours and isinstance(broken, (ValueError, AssertionError)):
            raise
        raise ValueError(_told(broken, model, name, where)) from broken


def _told(broken: BaseException, model: nn.Module, name: str, where: str) -> str:
    message, kind = (str(broken).strip().splitlines() or [""])[0], type(broken).__name__
    layer = _innermost(model, broken)
    blamed = name if layer is None else describe(model, layer)
    if "random operation while in randomness error mode" in message:
        return own_draws(blamed, layer)
    if "data-dependent control flow" in message:
        return (
            f"{blamed} decides by the value of a tensor, which torch.func.vmap cannot follow; use torch.where in "
            "place of if, and no .item()."
        )
    told = f"{kind}: {message[:QUOTED].rstrip('.')}" if message else kind
    return f"{blamed} failed {where + ' ' if where else ''}with {told}."


def _innermost_package(broken: BaseException) -> str:
    """The package in whose code an error was raised."""
    frame = broken.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _innermost(model: nn.Module, broken: BaseException) -> nn.Module | None:
    layers, found, frame = {id(layer): layer for layer in model.modules()}, None, broken.__traceback__
    while frame is not None:
        found = layers.get(id(frame.tb_frame.f_locals.get("self")), found)
        frame = frame.tb_next
    return found
