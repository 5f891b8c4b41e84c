"""The run that is certified, and what is kept of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaebench.gates.at_rest import HELD
from vaebench.gates.path import Mismatch, Path
from vaebench.gates.planning import Plan, watch
from vaebench.gates.randomness import Randomness
from vaebench.gates.recorder import Recorder
from vaebench.gates.reference import Reference
from vaebench.gates.subject import Subject
from vaebench.gradients.loss import Loss, Parameters
from vaebench.training.records import Checkpoint, Divergence


@dataclass(frozen=True)
class Stage:
    """What is told of a certificate as it goes on.

    Attributes:
        title: what begins, or what was left out.
        reason: why it was left out; "" of what begins.
    """

    title: str
    reason: str = ""

    @property
    def left_out(self) -> bool:
        """Whether it was not done."""
        return bool(self.reason)

    def __str__(self) -> str:
        """A line for people."""
        return f"left out: {self.title}: {self.reason}" if self.left_out else self.title


StageCallback = Callable[[Stage], None]


@dataclass(frozen=True)
class Run:
    """What is kept of the run under test.

    Attributes:
        path: its steps beside the exact gradient.
        worst: the step that differs most from the claimed rule's.
        replay: the step whose gradient or loss differs most from the estimator's there, or from what is recorded.
        longest: a fault of so many successive steps cannot fall between the replayed ones.
        randomness: of minibatches and noise; None of a loop that does not say what it drew.
        finite: whether all steps and gradients were that were seen.
        differences: numbers of the replayed steps, (n,), and the gradients less the trusted ones, and these,
            (n, S, p) each; None if too many.
        diverged: members that left the finite numbers.
        points: parameters of the first member at the start, early on and at the end, where finite.
        like: stacked parameters, for names and shapes.
    """

    path: Path | None
    worst: Mismatch | None
    replay: Mismatch | None
    longest: int
    randomness: Randomness | None
    finite: bool
    differences: tuple[Tensor, Tensor, Tensor] | None
    diverged: tuple[Divergence, ...]
    points: dict[str, Parameters]
    like: Parameters


class Case(NamedTuple):
    """A run under test, with everything that its gates are judged by.

    Attributes:
        subject: what is under test.
        run: what was kept of its training.
        plan: how much is measured.
        exact: the exact gradient of the claimed bound, or None.
        trusted: the model whose bound is claimed.
        beside: a loss whose gradient has the claimed mean, for differences at equal noise.
        law: the estimator whose law in K is claimed.
        say: told what begins and what is left out.
    """

    subject: Subject
    run: Run
    plan: Plan
    exact: Reference | None
    trusted: nn.Module
    beside: Loss
    law: str
    say: StageCallback


def watch_run(
    subject: Subject,
    schedule: Callable[[int], float],
    exact: Reference | None,
    trusted: Loss | None,
    plan: Plan,
    say: StageCallback,
) -> Run:
    """Train, and look at the steps that `watch` chooses.

    Args:
        subject: what is under test.
        schedule: claimed step sizes.
        exact: the reference, or None.
        trusted: whose gradients at equal noise have the claimed mean, or None.
        plan: how much.
        say: told what begins.

    Returns:
        What is kept.

    Raises:
        ValueError: if the loop does not tell of every step.
    """
    s, n = subject, plan.steps
    size = sum(p.numel() for p in s.model.parameters())
    watched = watch(plan, plan.members, size, exact.kind if exact else "")
    if len(watched.replayed) * plan.members * size > HELD:
        trusted = None
    recorder = Recorder(s, schedule, exact, trusted, watched, plan.generator(s.data.device, "controls"))
    marks = (0, *sorted({max(1, n // 8), n}))
    seeds = plan.seeds("run")
    members = [next(seeds) for _ in range(plan.members)]
    s.require_repeatable(members[:2])
    points, diverged, like, seen = {}, (), {}, []
    say(Stage(f"training {plan.members} members for {n} steps"))
    for checkpoint in s.checkpoints(schedule, n, s.batch_size, members, marks, recorder.observe):
        like, diverged = checkpoint.state.parameters, checkpoint.diverged
        recorder.compare(checkpoint)
        seen.append(checkpoint.state.step)
        points |= _point(checkpoint)
    if (recorder.told < n or tuple(seen) != marks) and len(diverged) < plan.members:
        raise ValueError(
            f"The training loop must call observe after every step and report at {marks}: it told of {recorder.told} "
            f"steps and reported at {tuple(seen)}."
        )
    path = recorder.path()
    parts = [torch.cat(part) for part in zip(*recorder.differences, strict=True)]
    return Run(
        path, recorder.worst, recorder.replay, watched.longest, recorder.randomness, recorder.finite,
        (parts[0], parts[1], parts[2]) if parts else None, diverged, points, like,
    )  # fmt: skip


def _point(checkpoint: Checkpoint) -> dict[str, Parameters]:
    member = checkpoint.state.member(0)
    fine = all(bool(p.isfinite().all()) and float(p.abs().max()) < 1e6 for p in member.values())
    return {f"step {checkpoint.state.step}": member} if fine else {}
