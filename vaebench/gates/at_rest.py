"""Gradients of what is under test, at a point: many members take a few steps of size zero."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaebench.gates.subject import Subject, checkpoints_of
from vaebench.gradients.loss import Parameters
from vaebench.measures.moments import STORED, Gathering, Moments
from vaebench.training.records import Step

HELD = 2**24  # numbers of gradients that are kept
FEWEST_GROUPS = 64  # of gradients whose moments are taken: an error has fewer degrees of freedom than that by one
ROUNDS = 16  # zero-length steps per member, at most: a stream draws for many more at once


@dataclass(frozen=True)
class Draws:
    """R gradients at one point, as the training loop gave them to its optimizer.

    Attributes:
        gradients: by name, (R, *shape).
    """

    gradients: dict[str, Tensor]

    @classmethod
    def joined(cls, parts: Sequence[Parameters]) -> "Draws":
        """Gradients that came a few at a time, (n, *shape) by name."""
        return cls({name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    @property
    def count(self) -> int:
        """R."""
        return len(next(iter(self.gradients.values())))

    @property
    def flat(self) -> Tensor:
        """Side by side, (R, p)."""
        return torch.cat([g.reshape(len(g), -1) for g in self.gradients.values()], 1).double()

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers in the parameters by name."""
        return {name: g[0].numel() for name, g in self.gradients.items()}

    def moments(self) -> Moments:
        """For the probes."""
        gathering = moments_of(self.gradients, self.count)
        gathering.add(self.gradients)
        return gathering.moments()


def moments_of(like: Parameters, count: int) -> Gathering:
    """Where the moments of R gradients, (n, *shape) by name, are gathered, with as many groups as may be held.

    Args:
        like: some of them.
        count: R.

    Returns:
        R groups, or the largest divisor of R of which sums of `HELD` numbers can be kept, or 64.
    """
    size = sum(g[0].numel() for g in like.values())
    most = count if count * size <= STORED else max(FEWEST_GROUPS, HELD // size)
    return Gathering(like, count, next(groups for groups in range(min(count, most), 0, -1) if count % groups == 0))


def gradients_at_rest(subject: Subject, count: int, seeds: Iterator[int]) -> Draws:
    """Gradients at the subject's parameters: many members take a few steps of size zero.

    Args:
        subject: what is under test.
        count: number of gradients R.
        seeds: source of the members' seeds.

    Returns:
        R gradients: up to 16 successive ones of each member, as many as divide R.
    """
    kept: list[Parameters] = []

    def keep(found: Parameters) -> None:
        kept.append({name: g.clone() for name, g in found.items()})

    _rest(subject, count, seeds, subject.batch_size, keep)
    return Draws.joined(kept)


def moments_at_rest(subject: Subject, count: int, seeds: Iterator[int], batch_size: int | None = None) -> Moments:
    """The moments of such gradients, of which only those of one step are held at a time.

    Args:
        subject: what is under test.
        count: number of gradients R.
        seeds: source of the members' seeds.
        batch_size: B; default the subject's.

    Returns:
        The moments.
    """
    gathering: list[Gathering] = []

    def add(found: Parameters) -> None:
        if not gathering:
            gathering.append(moments_of(found, count))
        gathering[0].add(found)

    _rest(subject, count, seeds, batch_size or subject.batch_size, add)
    return gathering[0].moments()


def _rest(
    subject: Subject, count: int, seeds: Iterator[int], batch_size: int, observe: Callable[[Parameters], None]
) -> None:
    s, size = subject, sum(p.numel() for p in subject.model.parameters())
    least = max(math.gcd(count, ROUNDS), count * size // HELD)
    rounds = next(rounds for rounds in range(least, count + 1) if count % rounds == 0)
    members, seen = [next(seeds) for _ in range(count // rounds)], 0

    def see(step: Step) -> None:
        nonlocal seen
        seen += len(next(iter(step.gradients.values())))
        observe({name: g.detach() for name, g in step.gradients.items()})

    loop = s.trainer(
        s.model, s.estimator, s.objective, s.data, s.rule, _nothing, rounds, batch_size, members,
        sampler=s.sampler, checkpoints=(0, rounds),
        observe=see,
    )  # fmt: skip
    for _ in checkpoints_of(s.trainer, loop):
        pass
    if seen != count:
        raise ValueError(
            f"The trainer must call observe with the gradients of every step: {count} were asked for, {seen} came."
        )


def _nothing(step: int) -> float:
    return 0.0 * step
