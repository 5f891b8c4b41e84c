"""The run that is certified: how much is measured, and what is kept of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaebench.gates.at_rest import HELD
from vaebench.gates.path import Mismatch, Path, Watch
from vaebench.gates.randomness import Randomness
from vaebench.gates.recorder import Recorder
from vaebench.gates.reference import Reference
from vaebench.gates.subject import Subject, checkpoints_of
from vaebench.gradients.loss import Loss, Parameters
from vaebench.measures.moments import STORED
from vaebench.support.checks import positive_integer
from vaebench.support.seeding import KEPT, derived_seed
from vaebench.training.records import Checkpoint, Divergence

HELD_AT_REST = 2**25  # the same of gradients at a point
EVEN = 160  # replicates of large nets come in multiples of so many
PREFIX, PAIRS = 80, 20  # steps beside the exact gradient where it is a quadrature
CHEAP = 2000  # parameters up to which every step is replayed
STRATUM = 25  # steps of which one, at random, is replayed of larger nets
CONTROLS = 200  # steps with an independent gradient
REPLICATES, FEWEST_REPLICATES, MOST_REPLICATES = 4000, 800, 2**20  # gradients at a point: wanted, at least, at most


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

    def seeds(self, purpose: str) -> Iterator[int]:
        """Seeds of members, without end, none of them twice."""
        generator, given = self.generator(torch.device("cpu"), f"members of {purpose}"), set()
        while True:
            seed = int(torch.randint(KEPT, (), generator=generator, device="cpu"))
            if seed not in given:
                given.add(seed)
                yield seed

    def generator(self, device: torch.device, purpose: str) -> torch.Generator:
        """A generator for one purpose, beside those of other purposes and of the members."""
        return torch.Generator(device=device).manual_seed(derived_seed(self.seed, purpose))

    def held(self, size: int) -> "Plan":
        """The same with as many replicates of p = `size` numbers as are held at one point.

        Args:
            size: parameters p.

        Returns:
            At most as many as `HELD_AT_REST` allows, at least 800; in 160ths, so that they fall into equal groups.
        """
        if self.replicates * size <= STORED:
            return self
        most = max(FEWEST_REPLICATES, min(self.replicates, HELD_AT_REST // size) // EVEN * EVEN)
        return replace(self, replicates=most)

    def dense(self, size: int) -> bool:
        """Whether all replicates of p = `size` numbers are held at one point."""
        return self.replicates * size <= HELD_AT_REST


@dataclass(frozen=True)
class Run:
    """What is kept of the run under test.

    Attributes:
        path: its steps beside the exact gradient.
        worst: the step that differs most from the claimed rule's.
        replay: the step whose gradient differs most from the estimator's at its parameters, minibatch and noise.
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


def plan_of(steps: int, members: int, replicates: int, seed: int) -> Plan:
    """A plan from what `run_gates` was given.

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
    if replicates > MOST_REPLICATES:
        raise ValueError(f"replicates must be at most {MOST_REPLICATES:,}, got {replicates:,}.")
    return Plan(steps, members, replicates, seed)


def watch(plan: Plan, members: int, size: int, kind: str) -> Watch:
    """Which steps are looked at: all where that is cheap, else random ones that no loop under test can know.

    Beside an exact gradient by quadrature: the first 80 and pairs of neighbours, one in every twentieth of the rest.
    Replayed: every step, or one in every 25 if there are more than 2,000 parameters.

    Args:
        plan: of the run.
        members: S.
        size: parameters p.
        kind: of the exact reference, or "".

    Returns:
        The steps.
    """
    n, generator = plan.steps, plan.generator(torch.device("cpu"), "watched steps")
    stratum = 1 if size <= CHEAP else STRATUM
    held = max(2, HELD // (members * size))
    if kind == "closed form":
        exact = _spread(n, min(n, held), 0, generator)
    else:
        exact = _spread(n, min(PREFIX, held), PAIRS, generator) if kind else []
    starts = range(0, n, stratum)
    offsets = torch.randint(stratum, (len(starts),), generator=generator).tolist()
    replayed = {min(n, start + offset + 1) for start, offset in zip(starts, offsets, strict=True)}
    controlled = frozenset(exact[:: max(1, len(exact) // CONTROLS)])
    return Watch(frozenset(exact), controlled, frozenset(replayed), 2 * stratum - 1)


def _spread(steps: int, prefix: int, pairs: int, generator: torch.Generator) -> list[int]:
    """The first steps, and a pair of neighbours at a random place in each of so many equal parts of the rest."""
    prefix = min(prefix, steps)
    rest, chosen = steps - prefix, set(range(1, prefix + 1))
    for i in range(pairs if rest >= 2 * pairs else 0):
        low, high = prefix + rest * i // pairs + 1, prefix + rest * (i + 1) // pairs
        first = low + int(torch.randint(high - low, (), generator=generator))
        chosen |= {first, first + 1}
    return sorted(chosen)


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
    """
    s, n = subject, plan.steps
    size = sum(p.numel() for p in s.model.parameters())
    watched = watch(plan, plan.members, size, exact.kind if exact else "")
    if len(watched.replayed) * plan.members * size > HELD:
        trusted = None
    recorder = Recorder(s, schedule, exact, trusted, watched, plan.generator(s.data.device, "controls"))
    marks = (0, *sorted({max(1, n // 8), n}))
    seeds = plan.seeds("run")
    loop = s.trainer(
        s.model, s.estimator, s.objective, s.data, s.rule, schedule, n, s.batch_size,
        [next(seeds) for _ in range(plan.members)], sampler=s.sampler, checkpoints=marks, observe=recorder.observe,
    )  # fmt: skip
    points, diverged, like = {}, (), {}
    say(Stage(f"training {plan.members} members for {n} steps"))
    for checkpoint in checkpoints_of(s.trainer, loop):
        like, diverged = checkpoint.state.parameters, checkpoint.diverged
        points |= _point(checkpoint)
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
