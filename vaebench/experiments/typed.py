"""Values of JSON against the annotations of who takes them: one sentence where they do not fit."""

import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from vaebench.support.texts import printable, shown

LARGEST_INTEGER = 2**63
WORDS = {bool: "true or false", int: "an integer", float: "a finite number", str: "a text"}
LISTS = (tuple, list, Sequence)


def hints(of: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's arguments or a class's attributes; none where they cannot be evaluated."""
    try:
        return get_type_hints(of)
    except (NameError, TypeError, AttributeError):
        return {}


def typed(name: str, value: Any, annotation: Any) -> Any:
    """Return a value of JSON if it fits an annotation; lists become tuples where a tuple is annotated.

    Annotations are bool, int, float, str, None, and tuples, lists, sequences and unions of these; any other fits all.

    Raises:
        ValueError: if it does not fit.

    >>> typed("betas", ["0.9", 0.999], tuple[float, float])
    Traceback (most recent call last):
        ...
    ValueError: betas must be a list of 2, each a finite number, got ['0.9', 0.999].
    """
    if not fits(value, annotation):
        raise ValueError(f"{name} must be {_words(annotation)}, got {shown(value)}.")
    if isinstance(value, str):
        printable(name, value)
    return tuple(value) if get_origin(annotation) is tuple else value


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value of JSON fits an annotation, as in `typed`."""
    kind = get_origin(annotation) or annotation
    if kind in (Union, types.UnionType):
        return any(fits(value, one) for one in get_args(annotation))
    if kind in (None, type(None)):
        return value is None
    if kind in LISTS:
        return isinstance(value, (list, tuple)) and _elements_fit(value, kind, get_args(annotation))
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_INTEGER
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value)
    return isinstance(value, str) if kind is str else True


def require_finite(name: str, value: Any) -> None:
    """Refuse numbers of JSON that no computation should start from: not finite, or of thousands of digits."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            require_finite(f"{name}.{key}", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            require_finite(name, inner)
    elif isinstance(value, (int, float)) and not (fits(value, int) or fits(value, float) or isinstance(value, bool)):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}.")
    elif isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
        raise ValueError(f"{name} must be an integer below 2^63, got {shown(value)}.")


def _elements_fit(value: Sequence[Any], kind: Any, elements: tuple[Any, ...]) -> bool:
    if kind is tuple and elements and elements[-1] is not Ellipsis:
        return len(value) == len(elements) and all(map(fits, value, elements))
    return not elements or all(fits(one, elements[0]) for one in value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _words(annotation: Any) -> str:
    kind, inner = get_origin(annotation) or annotation, get_args(annotation)
    if kind in (Union, types.UnionType):
        return " or ".join(map(_words, inner))
    if kind in LISTS:
        count = f" of {len(inner)}" if kind is tuple and inner and inner[-1] is not Ellipsis else ""
        return f"a list{count}, each {_words(inner[0])}" if inner else "a list"
    return "null" if kind in (None, type(None)) else WORDS.get(kind, "something else")
