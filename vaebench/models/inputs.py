"""What a model asks of its data: one tensor of examples in its dtype, on its device, with values it can explain.

The same rules hold wherever data come in. What loses nothing is converted; what would lose something is refused.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.models.distributions import Bernoulli, Poisson
from vaebench.models.protocol import LatentModel
from vaebench.support.layers import explaining, like_parameters, require_fixed_layers
from vaebench.support.repeatable import preserved

MOST_NUMBERS = 10**10  # of a data set, however little memory a tensor of equal rows takes


def as_input(x: Tensor, like: Tensor) -> Tensor:
    """Data as a model takes them: bytes become pixels in [0, 1], in the dtype and on the device of a parameter."""
    return x.to(like.device, non_blocking=True).to(like.dtype) / 255 if x.dtype == torch.uint8 else x


def minibatch(data: Tensor, indices: Tensor, like: Tensor) -> Tensor:
    """Rows (..., B, *event) of the data (N, *event) as a model takes them, by indices (..., B) on any device."""
    rows = data.index_select(0, indices.to(data.device).flatten())
    return as_input(rows.unflatten(0, indices.shape), like)


def check_input(model: LatentModel, x: Any) -> Tensor:
    """Data as the harness takes them, or one sentence about what is wrong. Synchronises: call it once, before a loop.

    Args:
        model: the model; left as it is.
        x: data, (N, *event): a tensor, an array or a data frame, of floats, integers, booleans or bytes.

    Returns:
        (N, *event), bytes as they are, all else in the model's dtype and on its device.

    Raises:
        ValueError: if x is no such table or empty; has another event shape than the decoder makes; holds NaN or
            infinity, or numbers that the model's dtype would round; leaves [0, 1] under a Bernoulli likelihood or the
            counts under a Poisson; is bytes that hold 0 and 1 only; or if the model holds no numbers or has a layer
            that depends on the batch or draws random numbers.
    """
    assert isinstance(model, nn.Module)
    like = like_parameters(model)
    require_fixed_layers(model)
    x = as_table(x)
    if x.ndim < 2 or len(x) < 1:
        raise ValueError(f"x must be (B, *event) with B at least 1, got shape {tuple(x.shape)}.")
    with torch.no_grad(), explaining(model, "The likelihood"), preserved(model):
        likelihood = model.likelihood(torch.zeros(1, 1, model.latents, dtype=like.dtype, device=like.device))
        event = tuple(likelihood.mean.shape[2:])
    if tuple(x.shape[1:]) != event:
        raise ValueError(f"x must be (B, {', '.join(map(str, event))}) for this model, got shape {tuple(x.shape)}.")
    low, high = _limits(x)
    if x.dtype == torch.uint8:
        _require_pixels(x, high, likelihood)
        return x
    x = _in_dtype(x, like)
    _require_range(x, low, high, likelihood)
    return x


def as_table(x: Any) -> Tensor:
    """One dense tensor of numbers from whatever holds one: a tensor, an array, a data frame.

    Args:
        x: the candidate.

    Returns:
        The tensor; booleans become 0.0 and 1.0.

    Raises:
        ValueError: if it holds something else than real numbers, or labels beside them.
    """
    if hasattr(x, "to_numpy") and hasattr(x, "columns"):
        x = _from_frame(x)
    if isinstance(x, np.ndarray):
        _require_readable(x.size)
        x = _from_array(x)
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be one tensor (N, *event) of examples without labels, got {_named(x)}.")
    try:
        return _plain(x)
    except RuntimeError as broken:  # of a tensor of another kind, which torch does not read everywhere
        raise ValueError(
            f"x must be a dense tensor of real numbers, got a {type(x).__name__} that cannot be read "
            f"({(str(broken).splitlines() or [''])[0][:100].rstrip('.')}); convert it first."
        ) from broken


def _plain(x: Tensor) -> Tensor:
    if x.is_nested or x.layout != torch.strided or x.is_quantized or x.is_complex() or x.is_meta:
        kind = "complex" if x.is_complex() else "on the meta device" if x.is_meta else "sparse, nested or quantized"
        raise ValueError(f"x must be a dense tensor of real numbers, got one that is {kind}; convert it first.")
    _require_readable(x.numel())
    x = x.detach().as_subclass(Tensor)
    if x.is_inference() and not torch.is_inference_mode_enabled():
        x = x.clone()  # no gradient passes through what was made in inference mode
    (x[:1] if x.ndim else x).flatten()[:1].tolist()  # a tensor without values has none to show
    return x.to(torch.uint8).float() if x.dtype == torch.bool else x


def _require_readable(count: int) -> None:
    if count > MOST_NUMBERS:
        raise ValueError(f"x has {count:,} numbers, and at most {MOST_NUMBERS:,} are read; use fewer rows.")


def _from_frame(frame: Any) -> Any:
    """The table of a data frame whose columns are numbers, none of them missing; nothing is rounded."""
    if not (hasattr(frame.dtypes, "items") and hasattr(frame, "iloc")):
        return frame.to_numpy()
    columns = []
    for place, (name, kind) in enumerate(frame.dtypes.items()):
        if kind.kind not in "biuf":
            raise ValueError(f"Column {str(name)!r} of x holds no numbers; leave it out or encode it first.")
        column = frame.iloc[:, place]
        if missing := int(column.isna().sum()):
            raise ValueError(f"Column {str(name)!r} of x holds {missing} NaN or missing value(s); mend them first.")
        columns.append(
            column.to_numpy(dtype=getattr(kind, "numpy_dtype", kind if isinstance(kind, np.dtype) else None))
        )
    if not columns:
        return frame.to_numpy()
    joint = np.result_type(*columns)
    for name, column in zip(frame.columns, columns, strict=True):
        with np.errstate(invalid="ignore"):
            same = column.astype(joint).astype(column.dtype) == column
        if not same.all():
            raise ValueError(
                f"Column {str(name)!r} of x is {column.dtype}, and beside the others it would be {joint}, which would "
                f"round {int((~same).sum())} of {len(same)} values; convert the columns first."
            )
    return np.stack([column.astype(joint) for column in columns], 1)


def _from_array(x: np.ndarray) -> Tensor:
    if np.ma.isMaskedArray(x) and np.ma.getmaskarray(x).any():
        raise ValueError(f"x has {int(np.ma.getmaskarray(x).sum())} masked value(s); remove or fill them first.")
    if x.dtype.kind not in "biuf" or x.dtype.itemsize > 8:
        raise ValueError(f"x must hold real numbers of at most 64 bits, got an array of {x.dtype}; convert it first.")
    return torch.from_numpy(np.array(x, dtype=x.dtype.newbyteorder("="), order="C", subok=False))


def _named(x: Any) -> str:
    kind = type(x).__name__
    if isinstance(x, tuple | list):
        return f"a {kind} of {len(x)}; pass the examples alone, x[0] if it is (x, labels), torch.tensor(x) if rows"
    if hasattr(x, "tensors"):
        return f"a {kind}; pass the examples alone, x.tensors[0]"
    return f"{'nothing' if x is None else kind}; pass a tensor or an array of the examples"


def _limits(x: Tensor) -> tuple[float, float]:
    """Smallest and largest value, in one pass."""
    wide = x if x.dtype.itemsize > 1 or not x.is_floating_point() else x.float()
    wide = wide.to(torch.int64) if wide.dtype in {torch.uint16, torch.uint32, torch.uint64} else wide
    low, high = (end.item() for end in wide.aminmax()) if wide.numel() else (0, 0)
    if not (-np.inf < low and high < np.inf):
        bad = int((~wide.isfinite()).sum())
        raise ValueError(f"x holds {bad} NaN or infinite value(s); remove or mend them first.")
    return low, high


def _in_dtype(x: Tensor, like: Tensor) -> Tensor:
    """The same numbers in the dtype and on the device of the model."""
    if x.dtype == like.dtype:
        return x.to(like.device)
    found = x.to(like.dtype)
    same = found.double() == x.double() if x.is_floating_point() else found.double().to(x.dtype) == x
    if not same.all():
        name, wanted = (str(kind).removeprefix("torch.") for kind in (x.dtype, like.dtype))
        raise ValueError(
            f"x is {name} and the model {wanted}, which would round {int((~same).sum())} of {x.numel()} values; "
            f"convert the data with x.to(torch.{wanted}), or the model with model.to(torch.float64)."
        )
    return found.to(like.device)


def _require_pixels(x: Tensor, high: float, likelihood: object) -> None:
    if isinstance(likelihood, Poisson):
        raise ValueError("x holds bytes, which become pixels in [0, 1], no counts; pass counts as floats, x.float().")
    if high <= 1:
        raise ValueError(
            f"x holds bytes of at most {high:g}, and bytes become pixels x / 255, at most {high / 255:.4f} here; "
            "pass binary data as floats, x.float(), or as 255 * x."
        )


def _require_range(x: Tensor, low: float, high: float, likelihood: object) -> None:
    if isinstance(likelihood, Bernoulli) and not 0 <= low <= high <= 1:
        raise ValueError(
            f"x must lie in [0, 1] for a Bernoulli likelihood, got values in [{low:g}, {high:g}]; rescale it."
        )
    if isinstance(likelihood, Poisson) and (low < 0 or not bool((x == x.floor()).all())):
        odd = low if low < 0 else x[x != x.floor()].flatten()[0].item()
        raise ValueError(f"x must be counts 0, 1, 2, ... for a Poisson likelihood, got {odd:g}; round or mend it.")
