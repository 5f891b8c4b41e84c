"""Refusals of bad input, one clear sentence each: what was wrong, with the value, and what to do."""

import math
import operator
from collections.abc import Iterable
from typing import TypeVar

import torch

from vaebench.support.texts import shown

T = TypeVar("T")


def positive_integer(name: str, value: object) -> int:
    """Return a value as an int if it is an integer of at least 1; bools and floats are refused.

    Raises:
        ValueError: that names the value, if it is not.

    >>> positive_integer("samples", 3)
    3
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        number = None
    if number is None or number < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {shown(value)}.")
    return number


def within(name: str, value: float, low: float, high: float = math.inf) -> float:
    """Return a value as a float if it is a finite number in [low, high]; else a ValueError names it."""
    try:
        holds = math.isfinite(value) and low <= value <= high
    except (TypeError, OverflowError):  # no number, or an integer too large for a float
        holds = False
    if not holds:
        span = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"finite and at least {low:g}"
        raise ValueError(f"{name} must be {span}, got {shown(value)}.")
    return float(value)


def one_of(name: str, value: T, options: Iterable[T]) -> T:
    """Return a value if it is one of the options, of which there are at least two.

    Raises:
        ValueError: if it is none of them.

    >>> one_of("split", "valid", ("train", "test"))
    Traceback (most recent call last):
        ...
    ValueError: split must be 'train' or 'test', got 'valid'.
    """
    *others, last = options = list(options)
    if value not in options:
        raise ValueError(f"{name} must be {', '.join(map(repr, others))} or {last!r}, got {shown(value)}.")
    return value


def available_device(value: str | torch.device) -> torch.device:
    """Return the device, "cpu", "cuda", "cuda:1", ..., if this machine has it; else it is a ValueError."""
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        raise ValueError(f"{value!r} is not a device; use 'cpu', 'cuda' or 'cuda:N'.") from None
    if device.type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"{value!r} is not a device that vaebench computes on; use 'cpu', 'cuda' or 'cuda:N'.")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        raise ValueError(
            f"Device {str(device)!r} is not there: torch sees {count} CUDA device(s); "
            "use 'cpu' or a machine with that device."
        )
    return device


def computing_device(value: str | torch.device) -> torch.device:
    """Return the device if numbers can be computed on it here: "meta", which holds none, is refused too."""
    device = available_device(value)
    if device.type == "meta":
        raise ValueError(f"{value!r} holds no numbers; use 'cpu', 'cuda' or 'cuda:N'.")
    return device
