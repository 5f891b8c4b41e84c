"""What is asked: of which estimator, on which model and data, at which objective, and how thoroughly."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import grad

from vaebench.data import linear_gaussian
from vaebench.experiments.certifying.levels import LEVELS, Level
from vaebench.experiments.limits import require_rows
from vaebench.gradients import (
    ESTIMATORS,
    Estimator,
    Loss,
    Objective,
    draw_noise,
    loss_function,
    own_parameters,
    pathwise,
)
from vaebench.gradients.trial import check_loss, check_replicates, require_trainable
from vaebench.models import LatentModel, as_input, check_input, linear_vae
from vaebench.support.attributes import copy_of
from vaebench.support.checks import one_of, positive_integer, within
from vaebench.support.layers import like_parameters
from vaebench.support.repeatable import preserved
from vaebench.support.seeding import derived_seed
from vaebench.training.optimizers import OPTIMIZERS

Say = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        name: of the estimator, for people.
        estimator: under test.
        model: one's own.
        data: (N, *event), in the model's dtype.
        objective: the bound whose gradient is claimed.
        own: whether the model is one's own, and not the linear bed itself.
        model_name: of the model, for people.
        optimizer: of the runs, a name in `OPTIMIZERS`.
        scale: C of the steps C / sqrt(n).
        batch_size: B.
        seed: of everything random.
        level: how much is measured.
        promise: the bound in words, where it is not the objective's own.
        beside: name of what cost and noise stand beside.
    """

    name: str
    estimator: Estimator
    model: nn.Module
    data: Tensor
    objective: Objective
    own: bool
    model_name: str
    optimizer: str
    scale: float
    batch_size: int
    seed: int
    level: Level
    promise: str = ""
    beside: str = pathwise.__name__

    @property
    def bound(self) -> str:
        """The claimed bound in words."""
        return self.promise or self.objective.name

    def generator(self, salt: int) -> torch.Generator:
        """A generator of the question's seed; another salt, another stream."""
        return torch.Generator(self.data.device).manual_seed(derived_seed(self.seed, salt))


def ask(
    estimator: Estimator,
    model: nn.Module | None = None,
    data: Tensor | None = None,
    objective: Objective | None = None,
    *,
    name: str | None = None,
    model_name: str | None = None,
    level: str = "default",
    optimizer: str = "sgd",
    scale: float = 0.01,
    batch_size: int = 8,
    seed: int = 0,
) -> Question:
    """A question, checked before anything long begins.

    Args:
        estimator: under test.
        model: where its noise and cost are measured; default the linear bed.
        data: (N, *event), for the model; both or neither.
        objective: the bound; default the ELBO with one sample.
        name: of the estimator; default its own.
        model_name: default the model's class.
        level: "fast", "quick" or "default".
        optimizer: of the runs.
        scale: C.
        batch_size: B.
        seed: of everything random.

    Returns:
        The question.

    Raises:
        ValueError: if something does not fit, or the estimator does not keep its contract.
    """
    one_of("level", level, LEVELS)
    OPTIMIZERS[optimizer]
    if within("scale", scale, 0) == 0:
        raise ValueError("scale must be positive, got 0; a step of size 0 never moves.")
    bed, rows = _bed(model, data, seed)
    question = Question(
        _called(estimator, name),
        estimator,
        bed,
        _as_rows(rows, bed),
        objective or Objective(),
        model is not None,
        model_name or type(bed).__name__,
        optimizer,
        scale,
        positive_integer("batch_size", batch_size),
        seed,
        LEVELS[level],
    )
    require_rows(question.batch_size, len(question.data))
    _require_gradient(question)
    return question


def _bed(model: nn.Module | None, data: Tensor | None, seed: int) -> tuple[nn.Module, Tensor]:
    """One's own model and data, or the linear ones of a seed where there are neither."""
    if model is None and data is None:
        generator = torch.Generator().manual_seed(seed)
        return linear_vae(generator=generator), linear_gaussian(generator=generator)
    if model is None or data is None:
        missing = "data" if data is None else "model"
        raise ValueError(f"A model and data belong together, and there is no {missing}; give both or neither.")
    return model, data


def _called(estimator: Estimator, name: str | None) -> str:
    """What the estimator is called on the page: "(yours)" where it has the name of another that is known."""
    called: str = name or getattr(estimator, "__name__", type(estimator).__name__)
    return f"{called} (yours)" if ESTIMATORS.get(called, estimator) is not estimator else called


def _as_rows(data: Tensor, model: nn.Module) -> Tensor:
    if not isinstance(model, nn.Module) or not isinstance(model, LatentModel):
        raise ValueError(
            f"The model must be an nn.Module with latents, posterior and likelihood, got a {type(model).__name__}; "
            "from_encoder_decoder makes one of an encoder and a decoder."
        )
    like = like_parameters(model)
    return as_input(check_input(model, data), like).to(like)


def _require_gradient(question: Question) -> None:
    """A few calls at the question's own point: what is refused here is refused before minutes have passed."""
    q = question
    loss = Loss(q.model, q.estimator, q.objective)  # pyright: ignore[reportArgumentType]
    check_loss(loss, q.data)
    require_trainable(loss)
    x = q.data[: min(q.batch_size, len(q.data))]
    noise = draw_noise(loss.model, x, q.objective, q.generator(0), q.estimator)
    with preserved(q.model), torch.enable_grad():
        found = q.estimator(loss.model, x, noise, q.objective)
    if not found.requires_grad:
        raise ValueError(f"No gradient reaches the parameters from what {q.name} returns: it is detached from them.")
    check_replicates(loss, q.data)
    for name, gradient in grad(loss_function(loss))(own_parameters(loss), x, noise).items():
        if not gradient.isfinite().all():
            raise ValueError(f"The gradient of {name.removeprefix('model.')!r} by {q.name} is not finite at the start.")


def at_precision(question: Question, dtype: torch.dtype) -> Question:
    """The same with a copy of the model and the data in another dtype: rounding is then no part of what is judged."""
    model = copy_of(question.model).to(dtype)
    return replace(question, model=model, data=question.data.to(dtype))
