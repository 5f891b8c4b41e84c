"""What is under test: a training run, of whose parts nothing is assumed but their signatures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from vaebench.data.sampling import SamplerFactory, whole, with_replacement
from vaebench.gates.parts import examined, failing, name_of
from vaebench.gates.path import UNITS
from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, Parameters
from vaebench.gradients.noise import declared_noise, noise_shape
from vaebench.gradients.objectives import Objective
from vaebench.gradients.trial import estimator_name
from vaebench.models import as_input
from vaebench.support.attributes import copy_of
from vaebench.support.layers import explaining
from vaebench.support.repeatable import preserved
from vaebench.support.texts import shown
from vaebench.training.fleet import train
from vaebench.training.optimizers import OptimizerFactory
from vaebench.training.records import Checkpoint, Step

Trainer = Callable[..., Iterator[Checkpoint]]


@dataclass(frozen=True)
class Subject:
    """A training run under test; nothing is assumed of its parts but their signatures.

    Attributes:
        model: where training starts.
        estimator: of the gradient.
        objective: the bound; its K, alpha and beta say which.
        data: (N, *event).
        batch_size: B.
        rule: the optimizer whose steps are claimed.
        sampler: of the minibatches.
        trainer: the training loop, with the signature of `vaebench.training.fleet.train`.
        optimizer: what the loop is given; default the rule.
    """

    model: nn.Module
    estimator: Estimator
    objective: Objective
    data: Tensor
    batch_size: int
    rule: OptimizerFactory
    sampler: SamplerFactory = with_replacement
    trainer: Trainer = train
    optimizer: OptimizerFactory | None = None

    def checkpoints(
        self,
        schedule: Callable[[int], float],
        steps: int,
        batch_size: int,
        seeds: Sequence[int],
        marks: Sequence[int],
        observe: Callable[[Step], None],
    ) -> Iterator[Checkpoint]:
        """Train with the loop under test; what it raises, or yields beside checkpoints, is refused in one sentence.

        Args:
            schedule: gamma_n.
            steps: n.
            batch_size: B.
            seeds: of the members.
            marks: steps at which to report.
            observe: called after every step.

        Yields:
            The checkpoints.

        Raises:
            ValueError: if the loop raises, or yields something else than checkpoints.
        """
        name = f"The training loop {name_of(self.trainer)!r}"
        with failing(name, self.model):
            loop: object = self.trainer(
                self.model, self.estimator, self.objective, self.data, self.optimizer or self.rule, schedule, steps,
                batch_size, seeds, sampler=examined(self.sampler), checkpoints=marks, observe=observe,
            )  # fmt: skip
            if not isinstance(loop, Iterable):
                raise ValueError(f"{name} must yield checkpoints as `train` does, got {shown(loop)}.")
            for one in loop:
                if not isinstance(one, Checkpoint):
                    raise ValueError(f"{name} must yield checkpoints as `train` does, got {shown(one)}.")
                yield one

    def require_repeatable(self, seeds: Sequence[int]) -> None:
        """Refuse a training loop whose gradients are not a function of its seeds: two steps of size zero, taken twice.

        Args:
            seeds: of two members or more.

        Raises:
            ValueError: if the second run has other gradients than the first, or the loop fails.
        """

        def gradients() -> list[Tensor]:
            seen: list[Tensor] = []

            def observe(step: Step) -> None:
                seen.extend(g.detach().clone() for g in step.gradients.values())

            for _ in self.checkpoints(lambda number: 0.0 * number, 2, self.batch_size, seeds, (0, 2), observe):
                pass
            return seen

        first, second = gradients(), gradients()
        units = UNITS * torch.finfo(next(self.model.parameters()).dtype).eps
        same = len(first) == len(second) and all(map(partial(torch.allclose, rtol=units, atol=units), first, second))
        if not same and all(bool(g.isfinite().all()) for g in first):
            raise ValueError(
                f"The training loop {name_of(self.trainer)!r} has other gradients when it is run again from the same "
                "seeds; all that it draws must come from them, and it must remember no run."
            )

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
