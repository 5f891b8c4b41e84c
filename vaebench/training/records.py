"""What a fleet hands out: states for probes, steps for observers, checkpoints for whoever asked."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaebench.gradients.loss import Loss, Parameters
from vaebench.support.checks import positive_integer


@dataclass(frozen=True)
class State:
    """A fleet after `step` steps, as probes see it.

    Attributes:
        step: steps taken.
        parameters: stacked, (S, *shape), under the names of `loss`; copies that training leaves alone.
        loss: the loss of one member.
        data: (N, *event).
        seeds: one per member.
    """

    step: int
    parameters: Parameters
    loss: Loss
    data: Tensor
    seeds: tuple[int, ...]

    @property
    def like(self) -> Tensor:
        """A parameter, for the device and the dtype."""
        return next(iter(self.parameters.values()))

    def member(self, s: int) -> Parameters:
        """The parameters of member s, as `vaebench.measures.probes` takes them."""
        return {name: stacked[s] for name, stacked in self.parameters.items()}

    def finite(self) -> Tensor:
        """Which members have finite parameters only, (S,)."""
        return torch.stack([p.reshape(len(p), -1).isfinite().all(1) for p in self.parameters.values()]).all(0)

    def each(self, probe: Callable[[Parameters], Any]) -> Tensor:
        """A number, or an `Estimate`, of one member's parameters for each: (S,) or (S, 2); NaN of diverged members."""
        return self.each_seed(lambda parameters, _: probe(parameters))

    def each_seed(self, probe: Callable[[Parameters, int], Any]) -> Tensor:
        """The same of parameters and seed."""
        members = zip(range(len(self.seeds)), self.seeds, self.finite().tolist(), strict=True)
        found = [probe(self.member(s), seed) if fine else math.nan for s, seed, fine in members]
        values = [torch.as_tensor(value, dtype=torch.float64, device="cpu") for value in found]
        return torch.stack(torch.broadcast_tensors(*values))


class Step(NamedTuple):
    """One step of all members, as an observer sees it: x_n = `after` from x_{n-1} = `before`.

    Attributes:
        number: n >= 1.
        gamma: step size.
        before: stacked parameters; a copy that stays valid.
        after: stacked parameters; the live ones: read now or copy.
        gradients: stacked, what the optimizer was given.
        losses: at `before`, (S,).
        indices: of the minibatches, (S, B).
        noise: of the gradients, (S, K, B, D); None from a loop that does not say, whose steps cannot be replayed.
    """

    number: int
    gamma: float
    before: Parameters
    after: Parameters
    gradients: Parameters
    losses: Tensor
    indices: Tensor
    noise: Tensor | None = None


class Divergence(NamedTuple):
    """Where a member was first seen to leave the finite numbers, and the loss, or the sum of parameters, there."""

    seed: int
    step: int
    value: float


@dataclass(frozen=True)
class Checkpoint:
    """What a fleet reports at a checkpoint: every step since the last one, and the probes now.

    Attributes:
        state: the fleet.
        losses: minibatch losses of the steps since the last checkpoint, at their starts, (n, S).
        grad_sq: squared norms of those steps' minibatch gradients, (n, S).
        values: of the probes; (S,), or (S, 2) with standard errors.
        diverged: members found to have diverged so far, in the order of the seeds.
    """

    state: State
    losses: Tensor
    grad_sq: Tensor
    values: dict[str, Tensor]
    diverged: tuple[Divergence, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row per member: step, seed, means since the last checkpoint, and the probes by name."""
        columns = {"step_loss": self.losses.mean(0), "step_grad_sq": self.grad_sq.mean(0)} if len(self.losses) else {}
        for name, value in self.values.items():
            parts = value.unsqueeze(1) if value.ndim == 1 else value
            columns |= dict(zip((name, f"{name}_error"), parts.T, strict=False))
        lists = {name: column.tolist() for name, column in columns.items()}
        return [
            {"step": self.state.step, "seed": seed} | {name: column[s] for name, column in lists.items()}
            for s, seed in enumerate(self.state.seeds)
        ]


def divergences(state: State, losses: Tensor, start: int) -> dict[int, Divergence]:
    """By seed, the members with a non-finite loss (n, S) since step `start`, or with a non-finite parameter now."""
    sums = torch.stack([p.reshape(len(p), -1).sum(1) for p in state.parameters.values()]).sum(0)
    table = torch.cat([losses, sums.unsqueeze(0)])
    bad = ~torch.cat([losses.isfinite(), state.finite().unsqueeze(0)])
    first = bad.int().argmax(0).tolist()
    return {
        seed: Divergence(seed, min(start + row + 1, state.step), float(table[row, s]))
        for s, (seed, row, hit) in enumerate(zip(state.seeds, first, bad.any(0).tolist(), strict=True))
        if hit
    }


def geometric(steps: int, per_decade: int = 8) -> tuple[int, ...]:
    """Steps 0, 1, ... up to `steps`, equally spaced in the logarithm.

    Returns:
        The steps, `per_decade` in a factor of ten, without repetition.

    >>> geometric(100, 2)
    (0, 1, 3, 10, 32, 100)
    """
    ratio, steps = 10 ** (1 / positive_integer("per_decade", per_decade)), positive_integer("steps", steps)
    found, power = {0, steps}, 0
    while (step := round(ratio**power)) < steps:
        found.add(step)
        power += 1
    return tuple(sorted(found))
