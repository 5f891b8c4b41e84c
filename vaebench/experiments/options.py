"""The options of a part: those that its function takes, of the kind it takes, and none that the harness owns."""

from collections.abc import Callable, Collection, Mapping
from inspect import Parameter, signature
from typing import Any, TypeVar

from vaebench.experiments.experiment import ComponentSpec
from vaebench.experiments.typed import hints, typed
from vaebench.support.texts import sentence

T = TypeVar("T")
OWNED_OF_DATA = ("split", "dtype", "device", "generator", "seed", "progress", "directory")
OWNED_OF_MODEL = ("dtype", "device", "generator", "seed", "event", "features", "progress", "directory")
OWNED_OF_OPTIMIZER = ("parameters", "params", "lr")
NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def options_of(part: ComponentSpec, factory: Callable[..., Any], owned: Collection[str]) -> dict[str, Any]:
    """The options of a part as its function takes them; those that are parts themselves are returned as they are.

    Returns:
        The options, lists as tuples where these are annotated.

    Raises:
        ValueError: if an option is owned by the harness, unknown or of the wrong kind, or a needed one is missing.
    """
    parameters = {name: one for name, one in _parameters(part, factory).items() if one.kind in NAMED}
    taken, annotated = [name for name in parameters if name not in owned], hints(factory)
    for name in part.options:
        if name in owned:
            raise ValueError(f"{part.name} cannot be given {name!r} by an experiment: vaebench sets it.")
        if name not in taken:
            raise ValueError(f"{part.name} takes no option {name!r}; it takes {', '.join(taken) or 'none'}.")
    for name in taken:
        if parameters[name].default is Parameter.empty and name not in part.options:
            raise ValueError(f"{part.name} needs the option {name!r}.")
    return {
        name: value
        if isinstance(value, ComponentSpec)
        else typed(f"{part.name}.{name}", value, annotated.get(name, Any))
        for name, value in part.options.items()
    }


def made(name: str, factory: Callable[..., T], arguments: Mapping[str, Any]) -> T:
    """What a function makes of those arguments that it takes; whatever goes wrong in it is one sentence with its name.

    Returns:
        What it makes.

    Raises:
        LookupError: if it refuses a name.
        OSError: if it cannot read a file.
        ValueError: if it fails in any other way, sys.exit included.
    """
    taken = signature(factory).parameters
    try:
        return factory(**{key: value for key, value in arguments.items() if key in taken})
    except (ValueError, LookupError, OSError):
        raise
    except MemoryError:
        raise ValueError(f"{name} does not fit into this machine's memory: choose it smaller.") from None
    except (Exception, SystemExit) as trouble:
        if "alloc" in str(trouble) and "memory" in str(trouble):
            raise ValueError(f"{name} does not fit into this machine's memory: choose it smaller.") from None
        raise ValueError(f"{name} cannot be made ({type(trouble).__name__}: {sentence(trouble)})") from trouble


def _parameters(part: ComponentSpec, factory: Callable[..., Any]) -> Mapping[str, Parameter]:
    try:
        return signature(factory).parameters
    except (TypeError, ValueError):
        raise ValueError(f"{part.name} is no function whose arguments can be known; write one around it.") from None
