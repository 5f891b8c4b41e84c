"""Snapshots: everything that the future of a fleet depends on, as tensors by name.

A fleet that is started from one goes on exactly as that it was taken of: same minibatches, noise and checkpoints.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaebench.data.sampling import Stream
from vaebench.gradients.loss import Parameters
from vaebench.training.records import Divergence

Taken = Sequence[tuple[Tensor, Tensor]]
Found = tuple[Divergence, ...]


class Snapshot(NamedTuple):
    """A fleet between two steps.

    Attributes:
        step: steps taken.
        parameters: stacked, (S, *shape).
        optimizer: its state, by "<number of the parameter>.<name>"; integers as int64 scalars.
        generators: states of the members' generators, (S, bytes).
        losses: of the steps since the last checkpoint, (n, S).
        grad_sq: of the same steps, (n, S).
        diverged: members found to have diverged before that.
    """

    step: int
    parameters: Parameters
    optimizer: dict[str, Tensor]
    generators: Tensor
    losses: Tensor
    grad_sq: Tensor
    diverged: Found


def capture(
    step: int, parameters: Parameters, optimizer: Optimizer, streams: Sequence[Stream], taken: Taken, diverged: Found
) -> Snapshot:
    """A snapshot, of copies; of `taken`, the steps since the last checkpoint, there is at least one."""
    losses, squares = (torch.stack(part) for part in zip(*taken, strict=True))
    states = optimizer.state_dict()["state"]
    return Snapshot(
        step,
        {name: stacked.detach().clone() for name, stacked in parameters.items()},
        {
            f"{number}.{name}": (value if isinstance(value, Tensor) else torch.tensor(value, device="cpu"))
            .detach()
            .clone()
            for number, state in states.items()
            for name, value in state.items()
            if value is not None
        },
        torch.stack([stream.generator.get_state() for stream in streams]),
        losses,
        squares,
        diverged,
    )


def restore(snapshot: Snapshot, parameters: Parameters, optimizer: Optimizer, streams: Sequence[Stream]) -> None:
    """Bring a fleet that was set up afresh, of the same models, optimizer and seeds, to where it was, in place.

    Raises:
        ValueError: if other parameters are trained than were when the snapshot was taken, or of other shapes.
    """
    _require_same(snapshot.parameters, parameters)
    with torch.no_grad():
        for name, stacked in parameters.items():
            stacked.copy_(snapshot.parameters[name])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": _nested(snapshot.optimizer), "param_groups": groups})
    for stream, state in zip(streams, snapshot.generators, strict=True):
        stream.generator.set_state(state.clone().cpu())  # torch ignores the offset of a view


def _require_same(kept: Parameters, trained: Parameters) -> None:
    """Refuse a fleet of other trained parameters, or of other numbers of members, than the snapshot's."""
    if odd := sorted(kept.keys() ^ trained.keys()):
        states = ("is trained in the snapshot and not here", "is trained here and was not in the snapshot")
        raise ValueError(
            f"{odd[0]!r} {states[odd[0] in trained]}: freeze the same parameters as when it was taken, or start anew."
        )
    for name, stacked in trained.items():
        if kept[name].shape != stacked.shape:
            raise ValueError(
                f"{name!r} is of shape {tuple(stacked.shape)} here and {tuple(kept[name].shape)} in the snapshot (the "
                "first number is that of the seeds): go on with the same model and seeds, or start anew."
            )


def _nested(saved: Mapping[str, Tensor]) -> dict[int, dict[str, object]]:
    states: dict[int, dict[str, object]] = {}
    for key, value in saved.items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = int(value) if value.dtype == torch.int64 else value.clone()
    return states


def digest_of(words: str, tensors: Mapping[str, Tensor]) -> str:
    """The sha256, 64 hexadecimal digits, of words and of the names, dtypes, shapes and bytes of tensors on the CPU."""
    found = hashlib.sha256(words.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
