"""Calls that leave a module as it was, and the refusal of those that give something else the second time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.support.attributes import Attributes, held_in
from vaebench.support.layers import describe, explaining, own_draws

PLAIN = {int, float, str, type(None)}  # a state of Python's generator is 625 integers, compared at once


class _Setting(NamedTuple):
    """A state of this process that belongs to the caller, and what it was."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]
    value: Any

    @property
    def changed(self) -> bool:
        """Whether it is another now."""
        return not _equal(self.get(), self.value)

    def restore(self) -> None:
        """Put back what it was, if it is another now."""
        if self.changed:
            self.put(self.value)


def _settings() -> list[_Setting]:
    """What torch takes from the process for all its tensors."""
    accessors: tuple[tuple[str, Callable[[], Any], Callable[[Any], object]], ...] = (
        ("default dtype", torch.get_default_dtype, torch.set_default_dtype),
        ("number of threads", torch.get_num_threads, torch.set_num_threads),
        ("deterministic mode", torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    )
    return [_Setting(name, get, put, get()) for name, get, put in accessors]


def _sources(model: nn.Module) -> list[_Setting]:
    """Generators of random numbers: torch's, numpy's and Python's own, and those among the model's attributes."""
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    cuda = [torch.cuda.default_generators[device.index or 0]] if device.type == "cuda" else []
    owned = [
        value for module in model.modules() for value in vars(module).values() if isinstance(value, torch.Generator)
    ]
    tensors = [
        _Setting("", one.get_state, one.set_state, one.get_state()) for one in (torch.default_generator, *cuda, *owned)
    ]
    others: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
        (np.random.get_state, np.random.set_state),
        (random.getstate, random.setstate),
    )
    return [*tensors, *(_Setting("", get, put, get()) for get, put in others)]


class _State(NamedTuple):
    """What a call may change in a module or in the process, or draw, although it should not."""

    modules: list[nn.Module]
    attributes: list[Attributes]
    tensors: list[tuple[nn.Module, str, Tensor, Tensor, bool]]
    held: list[tuple[nn.Module, str, Any, Any]]
    sources: list[_Setting]
    settings: list[_Setting]

    @classmethod
    def of(cls, model: nn.Module) -> _State:
        """Copies of all attributes, tensors, arrays and states of generators."""
        modules = list(model.modules())
        return cls(
            modules,
            list(map(Attributes.of, modules)),
            [(m, name, t, t.detach().clone(), t.requires_grad) for m in modules for name, t in _own(m)],
            [(m, name, one, _cloned(one)) for m in modules for name, one in held_in(m)],
            _sources(model),
            _settings(),
        )

    def drew(self) -> bool:
        """Whether a generator has moved since."""
        return any(source.changed for source in self.sources)

    def setting(self) -> str | None:
        """The name of a setting of torch that is another since."""
        return next((setting.name for setting in self.settings if setting.changed), None)

    def changed(self) -> tuple[nn.Module, str] | None:
        """A layer and the name of a parameter, buffer or attribute of it that is new or another since."""
        known = {(id(module), name) for module, name, *_ in self.tensors}
        for module in self.modules:
            for name, _ in _own(module):
                if (id(module), name) not in known:
                    return module, name
        for module, name, tensor, copy, trained in self.tensors:
            if getattr(module, name) is not tensor or not _same(tensor, copy) or tensor.requires_grad != trained:
                return module, name
        return next(((module, name) for module, name, one, copy in self.held if not _equal(one, copy)), None)

    def restore(self) -> None:
        """Bring everything back, bit for bit."""
        self.restore_model()
        for setting in (*self.sources, *self.settings):
            setting.restore()

    def restore_model(self) -> None:
        """Bring the module back, bit for bit; generators go on from where they are."""
        for attributes in self.attributes:
            attributes.restore()
        with torch.no_grad():
            for _, _, tensor, copy, trained in self.tensors:
                if not _same(tensor, copy):
                    tensor.copy_(copy)
                if tensor.requires_grad != trained:
                    tensor.requires_grad_(trained)
            for _, _, one, copy in self.held:
                if not _equal(one, copy):
                    one[...] = copy


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of the module itself."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether shapes and all numbers are equal, NaN and NaN included."""
    if first.shape != second.shape:
        return False
    return bool(((first == second) | ((first != first) & (second != second))).all())


def _equal(first: Any, second: Any) -> bool:
    """Whether two tensors, arrays, states of generators or numbers are equal, bit for bit where they are arrays."""
    if isinstance(first, Tensor):
        return _same(first, second)
    if isinstance(first, np.ndarray):
        return first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, tuple) and not PLAIN.issuperset(map(type, first)):
        return len(first) == len(second) and all(map(_equal, first, second))
    return first == second


def _cloned(one: Tensor | np.ndarray) -> Tensor | np.ndarray:
    return one.detach().clone() if isinstance(one, Tensor) else one.copy()


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's own generator for the code within, and put it back: the one place where a torch global is touched.

    Code of others (Pyro's programs, a loss or a factory of a user's) takes no generator and draws from that one. Those
    of accelerators are seeded where there are any: `torch.manual_seed` takes thirty times as long where there are none.
    """
    seed_all = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
    with torch.random.fork_rng(devices=[]):
        seed_all(seed)
        yield


@contextmanager
def preserved(model: nn.Module) -> Iterator[_State]:
    """Whatever is called within leaves the module, and torch's generators, as they were, bit for bit."""
    state = _State.of(model)
    try:
        yield state
    finally:
        state.restore()


@contextmanager
def left_alone(model: nn.Module, data: Tensor | None = None) -> Iterator[None]:
    """Refuse what changes a model or its data within, in whatever call; both are put back.

    A call on other parameters, or on a copy of a model, still reaches the caller's own where a hook or a closure holds
    it. Generators go on from where they are.

    Args:
        model: the caller's.
        data: the caller's; None where nobody else is given them.

    Yields:
        Nothing.

    Raises:
        ValueError: that names what was changed, once the code within is done.
    """
    state, kept = _State.of(model), None if data is None else data.clone()
    changed, same = None, True
    try:
        yield
        changed = state.changed()
    finally:
        state.restore_model()
        if data is not None and kept is not None and not (same := _same(data, kept)):
            data.copy_(kept)
    by = "a hook, a closure or other code that is called holds; it was put back, work on a copy"
    if changed:
        raise ValueError(f"{changed[1]!r} of {_lowered(describe(model, changed[0]))} was changed, which {by}.")
    if not same:
        raise ValueError(f"The data were changed, which {by}.")


def require_repeatable(model: nn.Module, call: Callable[[], Tensor], name: str) -> Tensor:
    """Refuse a call that gives something else the second time, draws random numbers, or leaves something behind.

    Args:
        model: every module that the call may reach.
        call: what is called twice; the model, torch's settings and all generators are left as they were.
        name: what is to blame if it is no layer, as "Estimator 'mine'".

    Returns:
        What the call gives.

    Raises:
        ValueError: if it is not repeatable.
    """
    with explaining(model, name), preserved(model) as state:
        found = call()
        changed, drew, setting = state.changed(), state.drew(), state.setting()
        if changed is None and setting is None and not drew and _same(call(), found):
            return found
        state.restore()
        layer = None if changed or setting else _random_layer(model, call, state)
    if changed:
        owner = describe(model, changed[0])
        if name != describe(model, model):
            raise ValueError(f"{name} changes {changed[1]!r} of {_lowered(owner)}; work on a copy.")
        raise ValueError(
            f"{owner} changes its {changed[1]!r} when it is called, so its gradients depend on the calls before; call "
            "model.eval(), or take it out."
        )
    if setting:
        raise ValueError(f"{name} changes torch's global {setting} when it is called; set it before, or take it out.")
    raise ValueError(own_draws(name if layer is None else describe(model, layer), layer, drew))


def _lowered(name: str) -> str:
    return name[:1].lower() + name[1:]


def _random_layer(model: nn.Module, call: Callable[[], Tensor], state: _State) -> nn.Module | None:
    """The first layer that gives two results for one input, or in whose call a generator moves; innermost first."""
    runs: list[list[tuple[nn.Module, list[Tensor], list[Tensor]]]] = []
    entered: list[list[Any]] = []
    drawing: list[nn.Module] = []

    def states() -> list[Any]:
        return [source.get() for source in state.sources]

    def before(module: nn.Module, inputs: tuple) -> None:
        entered.append(states())

    def after(module: nn.Module, inputs: tuple, output: object) -> None:
        runs[-1].append((module, _tensors(inputs), _tensors(output)))
        if not all(map(_equal, entered.pop(), states())):
            drawing.append(module)

    handles = [layer.register_forward_pre_hook(before) for layer in model.modules()]
    handles += [layer.register_forward_hook(after) for layer in model.modules()]
    try:
        for _ in range(2):
            runs.append([])
            call()
    finally:
        for handle in handles:
            handle.remove()
    if drawing:
        return drawing[0]
    for (layer, given, found), (_, again, other) in zip(*runs, strict=False):
        if all(map(_same, given, again)) and not all(map(_same, found, other)):
            return layer
    return None


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    return [part for one in value for part in _tensors(one)] if isinstance(value, tuple | list) else []
