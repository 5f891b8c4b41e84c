"""Watches a training run: its steps, replayed, beside the exact gradient and the claimed rule's step.

The loop under test says of every step which minibatch and which noise it used. So a step can be replayed: the
gradient of the estimator, and of a trusted one, at the same parameters, minibatch and noise. Steps are kept as they
come and looked at many at a time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from vaebench.gates.path import UNITS, Mismatch, Path, Watch, mismatch
from vaebench.gates.randomness import Randomness
from vaebench.gates.recorded import Recorded, loss_mismatch
from vaebench.gates.reference import Reference, flat, unflatten
from vaebench.gates.subject import Subject, loss_of
from vaebench.gradients.loss import Loss, Parameters, loss_function
from vaebench.measures.moments import CHUNK, fresh
from vaebench.models import minibatch
from vaebench.training.records import Checkpoint, Step

BUFFER = 2**21  # numbers of steps that are held before they are looked at


class _Kept(NamedTuple):
    """A step as it is buffered; parameters flat, (S, p)."""

    number: int
    before: Tensor
    raw: Tensor
    after: Tensor
    mine: Tensor
    losses: Tensor
    indices: Tensor
    noise: Tensor | None


@dataclass
class Recorder:
    """An observer for `vaebench.training.fleet.train` that gathers a `Path`, and replays what it is told to.

    Attributes:
        subject: what is under test.
        schedule: claimed step sizes.
        reference: exact gradients, if there are any.
        trusted: a loss whose gradient has the claimed mean, for the differences at equal noise; or None.
        watch: which steps.
        generator: of the independent gradients.
        worst: the largest mismatch with the claimed rule's step, once there is one.
        replay: the largest mismatch with the estimator's own gradient and loss, once there is one.
        randomness: what was seen of minibatches and noise.
        differences: of the gradients from the trusted ones, (n, S, p) by parts, and the steps' numbers.
    """

    subject: Subject
    schedule: Callable[[int], float]
    reference: Reference | None
    trusted: Loss | None
    watch: Watch
    generator: torch.Generator
    worst: Mismatch | None = None
    replay: Mismatch | None = None
    randomness: Randomness | None = None
    differences: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    finite: bool = True
    _recorded: Recorded = field(default_factory=Recorded)
    _buffer: list[_Kept] = field(default_factory=list)
    _rows: list[tuple[Tensor, ...]] = field(default_factory=list)
    _controls: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _like: Parameters = field(default_factory=dict)
    _rule: torch.optim.Optimizer | None = None
    _end: Tensor | None = None

    def observe(self, step: Step) -> None:
        """Keep one step, and take the claimed rule's own step beside it."""
        before, raw = flat(step.before), flat(step.gradients)
        if self._rule is None:
            self._like = {name: tensor[:1] for name, tensor in step.before.items()}
            self._mine = before.clone()
            self._rule = self.subject.rule([self._mine], self.schedule(1))
        for group in self._rule.param_groups:
            group["lr"] = self.schedule(step.number)
        self._mine.data.copy_(before)
        self._mine.grad = raw.clone()
        self._rule.step()
        self._recorded.enter(step, raw)
        noise = None if step.noise is None else step.noise
        losses, mine = self._recorded.losses[-1], self._mine.detach().clone()
        kept = _Kept(step.number, before, raw, flat(step.after).clone(), mine, losses, step.indices, noise)
        self._buffer.append(kept)
        held = before.numel() * 5 + (0 if noise is None else noise.numel())
        if len(self._buffer) * held >= BUFFER:
            self.flush()

    @property
    def told(self) -> int:
        """How many steps were told."""
        return len(self._recorded.losses)

    def compare(self, checkpoint: Checkpoint) -> None:
        """Hold what a checkpoint records against the steps that were told."""
        found = self._recorded.compare(checkpoint)
        self.replay = self.replay if found is None else _larger(self.replay, found)

    def flush(self) -> None:
        """Look at the steps that are buffered."""
        steps, self._buffer = self._buffer, []
        if not steps or not self.finite:
            return
        before, after, mine = (torch.stack([getattr(s, part) for s in steps]) for part in ("before", "after", "mine"))
        errors = mismatch(before, mine, after, self.sizes)
        good = errors.isfinite() & torch.stack([s.raw for s in steps]).flatten(1).isfinite().all(1)
        self.finite = bool(good.all())
        steps = steps[: int(good.int().cumprod(0).sum())]
        if not steps:
            return
        worst = int(errors[: len(steps)].argmax())
        self.worst = _larger(self.worst, Mismatch(float(errors[worst]), steps[worst].number))
        self._replay([s for s in steps if s.number in self.watch.replayed and s.noise is not None])
        self._exact([s for s in steps if s.number in self.watch.exact])

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers in the parameters by name."""
        return {name: tensor[0].numel() for name, tensor in self._like.items()}

    def _replay(self, steps: Sequence[_Kept]) -> None:
        if not steps:
            return
        before, raw = (torch.cat([getattr(s, part) for s in steps]) for part in ("before", "raw"))
        indices = torch.cat([s.indices for s in steps])
        noise = torch.cat([s.noise for s in steps if s.noise is not None])
        members, numbers = len(steps[0].before), torch.tensor([s.number for s in steps])
        if self.randomness is None:
            self.randomness = Randomness(len(self.subject.data), noise[0].shape)
        self.randomness.enter(numbers, indices, noise, members)
        own, values = self._gradients(loss_of(self.subject), before, indices, noise)
        allowed = UNITS * torch.finfo(raw.dtype).eps * own.abs().amax(1).double().clamp(min=1e-300)
        errors = ((raw - own).abs().amax(1) / allowed).view(-1, members).amax(1)
        told = torch.stack([s.losses for s in steps])
        errors = torch.maximum(errors, loss_mismatch(told, values.view(-1, members)).to(errors))
        worst = int(errors.argmax())
        self.replay = _larger(self.replay, Mismatch(float(errors[worst]), int(numbers[worst])))
        if self.trusted is not None:
            aim, _ = self._gradients(self.trusted, before, indices, self.trusted.own_part(noise))
            off, shape = (raw - aim), (len(steps), members, -1)
            self.differences.append((numbers, off.view(shape), aim.view(shape)))

    def _gradients(self, loss: Loss, before: Tensor, indices: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (n, p) and losses (n,) of a loss at n points."""
        data, one = self.subject.data, vmap(grad_and_value(loss_function(loss)))
        decoded = noise.shape[1] * indices[0].numel() * data[0].numel()
        rows = max(1, CHUNK // max(before.shape[1], noise[0].numel(), decoded))
        found = []
        for start in range(0, len(before), rows):
            part = slice(start, start + rows)
            x = minibatch(data, indices[part], before)
            gradients, losses = one(unflatten(before[part], self._like), x, noise[part])
            found.append((flat(gradients), losses))
        gradients, losses = (torch.cat(part) for part in zip(*found, strict=True))
        return gradients, losses

    def _exact(self, steps: Sequence[_Kept]) -> None:
        if not steps:
            return
        numbers = torch.tensor([s.number for s in steps])
        gamma = torch.tensor([self.schedule(s.number) for s in steps], dtype=torch.float64)
        before, raw, after = (torch.stack([getattr(s, part) for s in steps]) for part in ("before", "raw", "after"))
        shape, start = before.shape[:2], sum(len(row[0]) for row in self._rows)
        moved = (before - after) / gamma.to(before)[:, None, None]
        values, exact = before[..., 0][:, :0], before[:, :0]
        if self.reference is not None:
            values, exact = self.reference.evaluate(unflatten(before.flatten(0, 1), self._like))
            values, exact = values.view(shape), exact.view(*shape, -1)
        if int(numbers[0]) == start + 1:
            last = int((numbers == torch.arange(start + 1, start + len(numbers) + 1)).sum())
            self._end = after[last - 1]
        self._rows.append((numbers, gamma.to(before), before, raw, moved, values, exact))
        at = torch.tensor([i for i, s in enumerate(steps) if s.number in self.watch.controlled], dtype=torch.long)
        if len(at):
            loss = loss_of(self.subject)
            x, noise = fresh(loss, self.subject.data, self.subject.batch_size, self.generator).take(len(at) * shape[1])
            drawn = vmap(grad(loss_function(loss)))(unflatten(before[at].flatten(0, 1), self._like), x, noise)
            self._controls.append((at + start, flat(drawn).view(len(at), *shape[1:], -1)))

    def path(self) -> Path | None:
        """The record so far; None if no finite step was watched."""
        self.flush()
        if not self._rows:
            return None
        numbers, gamma, before, raw, moved, values, exact = (torch.cat(part) for part in zip(*self._rows, strict=True))
        empty = torch.zeros(0, dtype=torch.long), before[:0]
        when, control = map(torch.cat, zip(*self._controls, strict=True)) if self._controls else empty
        end = before[-1] if self._end is None else self._end
        gamma, raw, moved, values, exact, control = (
            part.double() for part in (gamma, raw, moved, values, exact, control)
        )
        return Path(numbers, gamma, before, raw, moved, values, exact, end, (when, control), self.sizes)


def _larger(first: Mismatch | None, second: Mismatch) -> Mismatch:
    if math.isnan(second.error):
        second = second._replace(error=math.inf)
    return second if first is None or second.error > first.error else first
