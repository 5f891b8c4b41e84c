"""The run that is certified: how much is measured, and what is kept of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from vaebench.gates.path import Mismatch, Path, Recorder, watch
from vaebench.gates.reference import Reference
from vaebench.gates.subject import Subject
from vaebench.gradients.loss import Parameters
from vaebench.support.checks import positive_integer
from vaebench.training.records import Checkpoint, Divergence

StageCallback = Callable[[str], None]
PREFIX, PAIRS = 80, 20  # steps watched where the reference is a quadrature
CONTROLS = 200  # steps with an independent gradient
REPLICATES, FEWEST_REPLICATES = 4000, 800  # gradients at a point: wanted, and at least


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        steps: of the run.
        members: S.
        replicates: gradients at each point.
        seed: of everything random.
    """

    steps: int
    members: int
    replicates: int
    seed: int

    def seeds(self) -> Iterator[int]:
        """Seeds of members, without end."""
        generator = torch.Generator(device="cpu").manual_seed(self.seed)
        while True:
            yield int(torch.randint(2**62, (), generator=generator, device="cpu"))

    def generator(self, device: torch.device) -> torch.Generator:
        """A generator beside those of the members."""
        return torch.Generator(device=device).manual_seed(self.seed + 2**40)


@dataclass(frozen=True)
class Run:
    """What is kept of the run under test.

    Attributes:
        path: its watched steps.
        worst: the step that differs most from the claimed rule's.
        diverged: members that left the finite numbers.
        points: parameters of the first member at the start, early on and at the end, where finite.
        like: stacked parameters, for names and shapes.
    """

    path: Path | None
    worst: Mismatch | None
    diverged: tuple[Divergence, ...]
    points: dict[str, Parameters]
    like: Parameters


def plan_of(steps: int, members: int, replicates: int, seed: int) -> Plan:
    """A plan from what `certify` was given.

    Args:
        steps: at least 100.
        members: at least 2.
        replicates: at least 800, a multiple of 8.
        seed: of everything.

    Returns:
        The plan.

    Raises:
        ValueError: if one of them is out of range.
    """
    if positive_integer("members", members) < 2:
        raise ValueError("members must be at least 2, one seed has no standard error, got 1.")
    if positive_integer("steps", steps) < 100:
        raise ValueError(f"steps must be at least 100 for the gates of a run, got {steps}.")
    if positive_integer("replicates", replicates) < FEWEST_REPLICATES or replicates % 8:
        raise ValueError(f"replicates must be at least {FEWEST_REPLICATES} and a multiple of 8, got {replicates}.")
    return Plan(steps, members, replicates, seed)


def watch_run(
    subject: Subject, schedule: Callable[[int], float], exact: Reference | None, plan: Plan, say: StageCallback
) -> Run:
    """Train, watching every step if the reference is cheap, else the first hundred and pairs of later ones.

    Args:
        subject: what is under test.
        schedule: claimed step sizes.
        exact: the reference, or None.
        plan: how much.
        say: told what begins.

    Returns:
        What is kept.
    """
    s, n = subject, plan.steps
    everything = exact is not None and exact.kind == "closed form"
    watched = watch(n, n, 0) if everything else watch(n, PREFIX, PAIRS) if exact else frozenset()
    ordered = sorted(watched)
    controlled = frozenset(ordered[:: max(1, len(ordered) // CONTROLS)])
    generator = plan.generator(s.data.device)
    recorder = Recorder(s, schedule, exact, watched, controlled, generator)
    marks = (0, *sorted({max(1, n // 8), n}))
    seeds = plan.seeds()
    loop = s.trainer(
        s.model, s.estimator, s.objective, s.data, s.rule, schedule, n, s.batch_size,
        [next(seeds) for _ in range(plan.members)], sampler=s.sampler, checkpoints=marks, observe=recorder.observe,
    )  # fmt: skip
    points, diverged, like = {}, (), {}
    say(f"training {plan.members} members for {n} steps")
    for checkpoint in loop:
        like, diverged = checkpoint.state.parameters, checkpoint.diverged
        points |= _point(checkpoint)
    return Run(recorder.path(), recorder.worst[0] if recorder.worst else None, diverged, points, like)


def _point(checkpoint: Checkpoint) -> dict[str, Parameters]:
    member = checkpoint.state.member(0)
    fine = all(bool(p.isfinite().all()) and float(p.abs().max()) < 1e6 for p in member.values())
    return {f"step {checkpoint.state.step}": member} if fine else {}
