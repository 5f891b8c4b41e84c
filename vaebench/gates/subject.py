"""What is under test: a training run, of whose parts nothing is assumed but their signatures."""

from collections.abc import Callable, Iterable, Iterator
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
from vaebench.models import as_input
from vaebench.support.attributes import copy_of
from vaebench.support.layers import explaining
from vaebench.support.repeatable import preserved
from vaebench.support.texts import shown
from vaebench.training.fleet import train
from vaebench.training.optimizers import OptimizerFactory
from vaebench.training.records import Checkpoint

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
