"""Calls that leave a module as it was, and the refusal of those that give something else the second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaebench.support.layers import describe, explaining, own_draws


class Attributes(NamedTuple):
    """What a call may assign to a module: copies of its attributes and of the dicts and lists among them."""

    owner: dict[str, Any]
    attributes: dict[str, Any]
    containers: list[tuple[Any, Any]]

    @classmethod
    def of(cls, module: nn.Module) -> Attributes:
        """Shallow copies: no tensor is copied."""
        owner = vars(module)
        return cls(owner, owner.copy(), [(v, v.copy()) for v in owner.values() if type(v) in (dict, list)])

    def restore(self) -> None:
        """Undo assignments since."""
        for name in self.owner.keys() - self.attributes.keys():
            del self.owner[name]
        self.owner.update(self.attributes)
        for container, copy in self.containers:
            if isinstance(container, list):
                container[:] = copy
            elif len(container) != len(copy) or not all(map(is_, container.values(), copy.values())):
                container.clear()
                container.update(copy)


def may_assign(module: nn.Module) -> bool:
    """Whether a call may assign to the module's attributes: torch's own layers without hooks do not."""
    return not type(module).__module__.startswith("torch.nn.modules.") or bool(vars(module)["_forward_pre_hooks"])


def copy_of(module: nn.Module) -> nn.Module:
    """A deep copy, also of a module that keeps tensors of a graph, which are detached in it."""
    kept = [value for one in module.modules() for value in _tensors_in(vars(one))]
    return deepcopy(module, {id(value): value.detach() for value in kept if value.grad_fn is not None})


def _tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors in dicts, lists and tuples of them, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors_in(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors_in(one)


class _State(NamedTuple):
    """What a call may change in a module, or draw, although it should not."""

    modules: list[nn.Module]
    attributes: list[Attributes]
    tensors: list[tuple[nn.Module, str, Tensor, Tensor]]
    generators: list[tuple[torch.Generator, Tensor]]

    @classmethod
    def of(cls, model: nn.Module) -> _State:
        """Copies of all attributes, tensors and states of generators."""
        modules = list(model.modules())
        device = next((t.device for t in model.parameters()), torch.device("cpu"))
        cuda = [torch.cuda.default_generators[device.index or 0]] if device.type == "cuda" else []
        owned = [value for module in modules for value in vars(module).values() if isinstance(value, torch.Generator)]
        return cls(
            modules,
            list(map(Attributes.of, modules)),
            [(m, name, tensor, tensor.detach().clone()) for m in modules for name, tensor in _own(m)],
            [(generator, generator.get_state()) for generator in (torch.default_generator, *cuda, *owned)],
        )

    def drew(self) -> bool:
        """Whether a generator has moved since."""
        return any(not torch.equal(generator.get_state(), state) for generator, state in self.generators)

    def changed(self) -> tuple[nn.Module, str] | None:
        """A layer and the name of a parameter or buffer of it that is new or another since."""
        known = {(id(module), name) for module, name, _, _ in self.tensors}
        for module in self.modules:
            for name, _ in _own(module):
                if (id(module), name) not in known:
                    return module, name
        for module, name, tensor, copy in self.tensors:
            if getattr(module, name) is not tensor or not _same(tensor, copy):
                return module, name
        return None

    def restore(self) -> None:
        """Bring everything back, bit for bit."""
        for attributes in self.attributes:
            attributes.restore()
        with torch.no_grad():
            for _, _, tensor, copy in self.tensors:
                if not _same(tensor, copy):
                    tensor.copy_(copy)
        for generator, state in self.generators:
            if not torch.equal(generator.get_state(), state):
                generator.set_state(state)


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of the module itself."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether shapes and all numbers are equal, NaN and NaN included."""
    if first.shape != second.shape:
        return False
    return bool(((first == second) | ((first != first) & (second != second))).all())


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's own generator for the code within, and put it back: the one place where a torch global is touched.

    Code of others (Pyro's programs, a loss or a factory of a user's) takes no generator and draws from that one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def preserved(model: nn.Module) -> Iterator[_State]:
    """Whatever is called within leaves the module, and torch's generators, as they were, bit for bit."""
    state = _State.of(model)
    try:
        yield state
    finally:
        state.restore()


def require_repeatable(model: nn.Module, call: Callable[[], Tensor], name: str) -> Tensor:
    """Refuse a call that gives something else the second time, draws random numbers, or leaves something behind.

    Args:
        model: every module that the call may reach.
        call: what is called twice; the model and torch's generators are left as they were.
        name: what is to blame if it is no layer, as "Estimator 'mine'".

    Returns:
        What the call gives.

    Raises:
        ValueError: if it is not repeatable.
    """
    with explaining(model, name), preserved(model) as state:
        found = call()
        changed, drew = state.changed(), state.drew()
        if changed is None and not drew and _same(call(), found):
            return found
        state.restore()
        layer = None if changed else _random_layer(model, call, state)
    if changed:
        owner = describe(model, changed[0])
        if name != describe(model, model):
            raise ValueError(f"{name} changes {changed[1]!r} of {_lowered(owner)}; work on a copy.")
        raise ValueError(
            f"{owner} changes its {changed[1]!r} when it is called, so its gradients depend on the calls before; call "
            "model.eval(), or take it out."
        )
    raise ValueError(own_draws(name if layer is None else describe(model, layer), layer))


def _lowered(name: str) -> str:
    return name[:1].lower() + name[1:]


def _random_layer(model: nn.Module, call: Callable[[], Tensor], state: _State) -> nn.Module | None:
    """The first layer that gives two results for one input, or in whose call a generator moves; innermost first."""
    runs: list[list[tuple[nn.Module, list[Tensor], list[Tensor]]]] = []
    entered: list[list[Tensor]] = []
    drawing: list[nn.Module] = []

    def states() -> list[Tensor]:
        return [generator.get_state() for generator, _ in state.generators]

    def before(module: nn.Module, inputs: tuple) -> None:
        entered.append(states())

    def after(module: nn.Module, inputs: tuple, output: object) -> None:
        runs[-1].append((module, _tensors(inputs), _tensors(output)))
        if not all(map(torch.equal, entered.pop(), states())):
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
