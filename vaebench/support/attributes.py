"""What a call may assign to a module beside its parameters and buffers, how it is undone, and copies of modules."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.support.layers import describe

CONTAINERS = (dict, list, set, deque, bytearray)
ABSENT = object()
LARGEST = 2**28  # bytes of what is kept to see whether a call changes it


class Attributes(NamedTuple):
    """Copies of a module's attributes, and of the containers among and within them: no tensor or array is copied."""

    module: nn.Module
    attributes: dict[str, Any]
    slots: dict[str, Any]
    containers: list[tuple[Any, Any]]

    @classmethod
    def of(cls, module: nn.Module) -> Attributes:
        """What the module has now."""
        owner = vars(module)
        slots = {name: getattr(module, name, ABSENT) for name in _slots(type(module))}
        found = _containers((*owner.values(), *slots.values()), set())
        return cls(module, owner.copy(), slots, [(one, _copied(one)) for one in found])

    def restore(self) -> None:
        """Undo assignments since."""
        owner = vars(self.module)
        for name in owner.keys() - self.attributes.keys():
            del owner[name]
        owner.update(self.attributes)
        for name, value in self.slots.items():
            if value is not ABSENT:
                setattr(self.module, name, value)
            elif hasattr(self.module, name):
                delattr(self.module, name)
        for container, kept in self.containers:
            _refill(container, kept)


def held_in(module: nn.Module) -> Iterator[tuple[str, Tensor | np.ndarray]]:
    """By name, the tensors and arrays among a module's attributes and in containers of them, of 256 MiB at most.

    Parameters and buffers aside; what is larger is taken for data, and tensors of a graph were left there by a call.
    """
    for name, value in vars(module).items():
        if name not in {"_parameters", "_buffers", "_modules"}:
            for one in _leaves(value):
                if _numbers(one):
                    yield name, one


def may_assign(module: nn.Module) -> bool:
    """Whether a call may assign to the module's attributes; of torch's, recurrent layers do, to lists of weights."""
    kind = type(module)
    return not kind.__module__.startswith("torch.nn.modules.") or kind.__setattr__ is not nn.Module.__setattr__


def assigned_by(module: nn.Module) -> list[nn.Module]:
    """The modules within whose attributes a call may assign: all if a hook is there, which may do so anywhere."""
    modules = list(module.modules())
    hooked = any(hooks for one in modules for name, hooks in vars(one).items() if name.endswith("_hooks"))
    return modules if hooked else [one for one in modules if may_assign(one)]


def copy_of(module: nn.Module) -> nn.Module:
    """A deep copy, also of a module that keeps tensors of a graph, which are detached in it.

    Returns:
        The copy.

    Raises:
        ValueError: that names the layer which cannot be copied.
    """
    kept = [value for one in module.modules() for value in tensors_in(vars(one))]
    known = {id(value): value.detach() for value in kept if value.grad_fn is not None}
    try:
        return deepcopy(module, dict(known))
    except Exception as broken:
        message = (str(broken).strip() or type(broken).__name__).splitlines()[0][:160].rstrip(".")
        blamed = describe(module, _uncopied(module, known))
        raise ValueError(
            f"{blamed} cannot be copied ({type(broken).__name__}: {message}), and a model must not be changed; give "
            "it a __deepcopy__, or take out what cannot be copied."
        ) from broken


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors in dicts, lists and tuples of them, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors_in(one)


def _leaves(value: object) -> Iterator[Tensor | np.ndarray]:
    if isinstance(value, (Tensor, np.ndarray)):
        yield value
    elif isinstance(value, dict):
        yield from (leaf for one in value.values() for leaf in _leaves(one))
    elif isinstance(value, (list, tuple, deque)):
        yield from (leaf for one in value for leaf in _leaves(one))


def _numbers(one: Tensor | np.ndarray) -> bool:
    if one.nbytes > LARGEST:
        return False
    if isinstance(one, np.ndarray):
        return one.flags.writeable and not isinstance(one, np.memmap) and one.dtype.kind in "biufc"
    return one.grad_fn is None and one.layout == torch.strided and not (one.is_meta or one.is_quantized)


def _uncopied(module: nn.Module, known: dict[int, Tensor]) -> nn.Module:
    """The innermost module that cannot be copied."""
    for child in module.children():
        try:
            deepcopy(child, dict(known))
        except Exception:  # whatever a copy of other code raises
            return _uncopied(child, known)
    return module


def _slots(kind: type) -> list[str]:
    declared = [one.__dict__.get("__slots__", ()) for one in kind.__mro__]
    names = [name for slots in declared for name in ([slots] if isinstance(slots, str) else slots)]
    return [name for name in names if name not in {"__dict__", "__weakref__"}]


def _containers(values: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """The containers among values and within them, each once."""
    for value in values:
        if isinstance(value, CONTAINERS):
            if id(value) in seen:
                continue
            seen.add(id(value))
            yield value
        if isinstance(value, (list, tuple, deque)):
            yield from _containers(value, seen)
        elif isinstance(value, dict):
            yield from _containers(value.values(), seen)


def _copied(container: Any) -> Any:
    """The contents, in a container of a kind that is no one's own."""
    return dict(container) if isinstance(container, dict) else list(container)


def _refill(container: Any, kept: Any) -> None:
    """Give a container the contents that it had, unless it still has them."""
    same = len(container) == len(kept) and all(map(is_, container, kept))
    if same and (not isinstance(container, dict) or all(map(is_, container.values(), kept.values()))):
        return
    container.clear()
    container.update(kept) if isinstance(container, (dict, set)) else container.extend(kept)
