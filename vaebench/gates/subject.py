"""What is under test, and gradients drawn from it at a point: by training with steps of size zero."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from vaebench.data.sampling import SamplerFactory, whole, with_replacement
from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, Parameters
from vaebench.gradients.noise import declared_noise, noise_shape
from vaebench.gradients.objectives import Objective
from vaebench.gradients.trial import estimator_name
from vaebench.measures.moments import STORED, Gathering, Moments
from vaebench.models import as_input
from vaebench.support.attributes import copy_of
from vaebench.support.layers import explaining
from vaebench.support.repeatable import preserved
from vaebench.support.texts import shown
from vaebench.training.fleet import train
from vaebench.training.optimizers import OptimizerFactory
from vaebench.training.records import Checkpoint

Trainer = Callable[..., Iterator[Checkpoint]]
HELD = 2**24  # numbers of gradients that are kept
FEWEST_GROUPS = 64  # of gradients whose moments are taken: an error has fewer degrees of freedom than that by one
ROUNDS = 16  # zero-length steps per member, at most: a stream draws for many more at once


@dataclass(frozen=True)
class Subject:
    """A training run under test; nothing is assumed of its parts but their signatures.

    Attributes:
        model: where training starts.
        estimator: of the gradient.
        objective: the bound; its K, alpha and beta say which.
        data: (N, *event).
        batch_size: B.
        rule: the optimizer that is claimed.
        sampler: of the minibatches.
        trainer: the training loop, with the signature of `vaebench.training.fleet.train`.
    """

    model: nn.Module
    estimator: Estimator
    objective: Objective
    data: Tensor
    batch_size: int
    rule: OptimizerFactory
    sampler: SamplerFactory = with_replacement
    trainer: Trainer = train

    def at_parameters(self, parameters: Parameters) -> "Subject":
        """The same at other parameters, by their names in `Loss`."""
        model = copy_of(self.model)
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in parameters.items():
                own[name.removeprefix("model.")].copy_(value)
        return replace(self, model=model)

    def with_samples(self, samples: int) -> "Subject":
        """The same with another number of samples K."""
        return replace(self, objective=replace(self.objective, samples=samples))

    def on_batch(self, x: Tensor) -> "Subject":
        """The same with one fixed batch: every law is conditional on x."""
        return replace(self, data=x, batch_size=len(x), sampler=whole)


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
    def flat(self) -> Tensor:
        """Side by side, (R, p)."""
        return torch.cat([g.reshape(len(g), -1) for g in self.gradients.values()], 1).double()

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers in the parameters by name."""
        return {name: g[0].numel() for name, g in self.gradients.items()}

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        return all(bool(g.isfinite().all()) for g in self.gradients.values())

    def moments(self) -> Moments:
        """For the probes."""
        gathering = moments_of(self.gradients, len(next(iter(self.gradients.values()))))
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
    members = [next(seeds) for _ in range(count // rounds)]
    loop = s.trainer(
        s.model, s.estimator, s.objective, s.data, s.rule, _nothing, rounds, batch_size, members,
        sampler=s.sampler, checkpoints=(0, rounds),
        observe=lambda step: observe({name: g.detach() for name, g in step.gradients.items()}),
    )  # fmt: skip
    for _ in checkpoints_of(s.trainer, loop):
        pass


def checkpoints_of(trainer: Trainer, loop: object) -> Iterator[Checkpoint]:
    """What a training loop under test yields, or one sentence if that is something else.

    Args:
        trainer: for its name.
        loop: what it returned.

    Yields:
        The checkpoints.

    Raises:
        ValueError: if it returned no iterator of checkpoints.
    """
    name = getattr(trainer, "__name__", type(trainer).__name__)
    if not isinstance(loop, Iterable):
        raise ValueError(f"The training loop {name!r} must yield checkpoints as `train` does, got {shown(loop)}.")
    for one in loop:
        if not isinstance(one, Checkpoint):
            raise ValueError(f"The training loop {name!r} must yield checkpoints as `train` does, got {shown(one)}.")
        yield one


def require_parts(rule: OptimizerFactory, sampler: SamplerFactory, data: Tensor, batch_size: int) -> None:
    """Refuse an optimizer or a sampler that makes something else than its kind; each is called once.

    Args:
        rule: the optimizer that is claimed.
        sampler: of the minibatches.
        data: (N, *event).
        batch_size: B.

    Raises:
        ValueError: that says which, and what it makes.
    """
    made: Any = rule([torch.zeros(2, 2, dtype=torch.float64, device=data.device)], 0.1)
    if not (callable(getattr(made, "step", None)) and hasattr(made, "param_groups")):
        raise ValueError(f"The optimizer must be made with step and param_groups, as torch's are, got {shown(made)}.")
    draw: Any = sampler(len(data), batch_size, torch.Generator(device=data.device).manual_seed(0))
    rows = draw(2) if callable(draw) else draw
    if not (isinstance(rows, Tensor) and tuple(rows.shape) == (2, batch_size) and rows.dtype == torch.int64):
        got = f"{rows.dtype} of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else shown(rows)
        raise ValueError(f"The sampler must make a function n -> (n, B) = (2, {batch_size}) of int64 for 2, got {got}.")


def _nothing(step: int) -> float:
    return 0.0 * step


def separated(
    estimator: Estimator, model: nn.Module, objective: Objective, data: Tensor
) -> tuple[Estimator, Estimator | None]:
    """An estimator that returns a pair, surrogate and reported value, as two estimators; another, and None.

    Args:
        estimator: under test; it is called once, on two examples.
        model: the model.
        objective: the bound.
        data: (N, *event).

    Returns:
        The surrogate, and the value if there is one.
    """
    like = next(model.parameters())
    x = as_input(data[:2], like)
    noise = x.new_zeros(Loss(model, estimator, objective).noise_shape(len(x)))  # pyright: ignore[reportArgumentType]
    with explaining(model, estimator_name(estimator)), preserved(model), torch.no_grad():
        found = estimator(model, x, noise, objective)  # pyright: ignore[reportArgumentType]
    if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, Tensor) for part in found)):
        return estimator, None
    return _part(estimator, 0), _part(estimator, 1)


def _part(estimator: Estimator, i: int) -> Estimator:
    @noise_shape(partial(declared_noise, estimator))
    @wraps(estimator)
    def part(*arguments: Any) -> Tensor:
        return estimator(*arguments)[i]

    return part


def loss_of(subject: Subject) -> Loss:
    """The loss of the subject's parts, outside its training loop."""
    return Loss(subject.model, subject.estimator, subject.objective)  # pyright: ignore[reportArgumentType]
