"""The record of a training run: every watched step beside the exact gradient, and beside the claimed rule's step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap

from vaebench.gates.reference import Reference, flat
from vaebench.gates.subject import Subject, loss_of
from vaebench.gradients.loss import Parameters, loss_function
from vaebench.measures.moments import fresh
from vaebench.training.records import Step

ROUNDING = 1e-6  # of a step, that the claimed rule may differ by


class Path(NamedTuple):
    """A run at its n watched steps; members finite throughout.

    Attributes:
        numbers: of the steps, increasing, (n,).
        gamma: claimed step sizes, (n,).
        before: parameters where the steps start, (n, S, p).
        raw: gradients as the optimizer was given them, (n, S, p).
        moved: (x_{k-1} - x_k) / gamma_k, (n, S, p).
        values: f where the steps start, (n, S); empty without a reference.
        exact: grad f there, (n, S, p); empty without a reference.
        end: parameters after the last of the steps 1, 2, ... that are all watched, (S, p).
        control: numbers of the steps with a second, independent gradient, (c,), and those, (c, S, p).
        blocks: sizes of the parameters by name.
    """

    numbers: Tensor
    gamma: Tensor
    before: Tensor
    raw: Tensor
    moved: Tensor
    values: Tensor
    exact: Tensor
    end: Tensor
    control: tuple[Tensor, Tensor]
    blocks: dict[str, int]

    @property
    def prefix(self) -> int:
        """How many steps from the first on are all watched."""
        ordinal = torch.arange(1, len(self.numbers) + 1, device=self.numbers.device)
        return int((self.numbers == ordinal).sum())


class Mismatch(NamedTuple):
    """The largest difference between a run's step and the claimed rule's, in units of what rounding explains."""

    error: float
    step: int


@dataclass(frozen=True)
class Recorder:
    """An observer for `vaebench.training.fleet.train` that gathers a `Path`.

    Attributes:
        subject: what is under test.
        schedule: claimed step sizes.
        reference: exact gradients, if there are any.
        watched: numbers of the steps to record.
        controlled: those of them that get an independent gradient.
        generator: of the independent gradients.
    """

    subject: Subject
    schedule: Callable[[int], float]
    reference: Reference | None
    watched: frozenset[int]
    controlled: frozenset[int]
    generator: torch.Generator
    rows: list[tuple[Tensor, ...]] = field(default_factory=list)
    controls: list[tuple[int, Tensor]] = field(default_factory=list)
    worst: list[Mismatch] = field(default_factory=list)
    kept: dict = field(default_factory=dict)

    def observe(self, step: Step) -> None:
        """Record one step; costs a gradient of the full data where it is watched."""
        self._compare(step)
        if step.number not in self.watched or not self.kept["finite"]:
            return
        gamma = self.schedule(step.number)
        before, after = flat(step.before), flat(step.after)
        found = self.reference.evaluate(step.before) if self.reference else (before[:0, 0], before[:0])
        meta = torch.tensor([step.number, gamma], dtype=torch.float64, device="cpu")
        self.rows.append((meta, before, flat(step.gradients), (before - after) / gamma, *found))
        if step.number == len(self.rows):
            self.kept["end"] = after.clone()
        if step.number in self.controlled:
            self.controls.append((len(self.rows) - 1, self._independent(step.before)))

    def _compare(self, step: Step) -> None:
        kept = self.kept
        if "rule" not in kept:
            kept["blocks"] = {name: tensor[0].numel() for name, tensor in step.before.items()}
            kept["mine"] = {name: tensor.clone() for name, tensor in step.before.items()}
            kept["rule"] = self.subject.rule(list(kept["mine"].values()), self.schedule(1))
        for group in kept["rule"].param_groups:
            group["lr"] = self.schedule(step.number)
        for name, tensor in kept["mine"].items():
            tensor.copy_(step.before[name])
            tensor.grad = step.gradients[name].clone()
        kept["rule"].step()
        error = mismatch(step.before, kept["mine"], step.after)
        kept["finite"] = math.isfinite(error)
        if kept["finite"] and (not self.worst or error > self.worst[0].error):
            self.worst[:] = [Mismatch(error, step.number)]

    def _independent(self, stacked: Parameters) -> Tensor:
        loss = loss_of(self.subject)
        members = len(next(iter(stacked.values())))
        x, noise = fresh(loss, self.subject.data, self.subject.batch_size, self.generator).take(members)
        return flat(vmap(grad(loss_function(loss)))(stacked, x, noise))

    def path(self) -> Path | None:
        """The record so far; None if no finite step was watched."""
        if not self.rows:
            return None
        meta, before, raw, moved, values, exact = (torch.stack(part) for part in zip(*self.rows, strict=True))
        at, drawn = zip(*self.controls, strict=True) if self.controls else ((), ())
        control = torch.tensor(at, dtype=torch.long, device="cpu"), torch.stack(drawn) if drawn else before[:0]
        numbers, gamma = meta[:, 0].long(), meta[:, 1].to(before)
        end = self.kept.get("end", before[-1])
        return Path(numbers, gamma, before, raw, moved, values, exact, end, control, self.kept["blocks"])


def mismatch(before: Parameters, expected: Parameters, actual: Parameters) -> float:
    """Largest difference of two steps from one point, over 1e-6 of the step plus 16 units in the last place."""
    errors = []
    for name, start in before.items():
        aim = expected[name].detach()
        allowed = ROUNDING * (aim - start).abs().max() + 16 * torch.finfo(aim.dtype).eps * aim.abs().max()
        errors.append((actual[name].detach() - aim).abs().max() / allowed.clamp(min=1e-300))
    return float(torch.stack(errors).max())


def watch(steps: int, prefix: int, pairs: int) -> frozenset[int]:
    """Steps to watch: the first ones, then so many pairs of neighbours, evenly spread.

    Args:
        steps: n.
        prefix: all of 1 .. prefix.
        pairs: of the rest.

    Returns:
        The numbers.

    >>> sorted(watch(11, 3, 2))
    [1, 2, 3, 6, 7, 10, 11]
    """
    prefix = min(prefix, steps)
    chosen: Sequence[int] = [prefix + round((steps - prefix) * (i + 1) / pairs) for i in range(pairs)]
    return frozenset(range(1, prefix + 1)) | {k for last in chosen for k in (last - 1, last) if k > prefix}
