"""From an experiment's names to what is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from vaebench.data import DATA
from vaebench.experiments.experiment import ComponentSpec, Experiment
from vaebench.experiments.limits import LARGEST_SEED
from vaebench.experiments.options import OWNED_OF_DATA, OWNED_OF_MODEL, OWNED_OF_OPTIMIZER, made, options_of
from vaebench.gradients.estimators import ESTIMATORS, Estimator
from vaebench.gradients.loss import Loss
from vaebench.models import MODELS, GaussianRegression, MeanFieldModel, gaussian
from vaebench.models.activations import relu, soft_clip, tanh
from vaebench.models.distributions import Bernoulli
from vaebench.support.checks import computing_device
from vaebench.support.seeding import derived_seed
from vaebench.support.texts import shown
from vaebench.training.optimizers import OPTIMIZERS, OptimizerFactory

START = LARGEST_SEED  # separates a seed's start from every seed's training: together they are the 2^32 that torch knows
OPTIONS: dict[str, Mapping[str, Callable[..., Any]]] = {
    "activations": {"relu": relu, "tanh": tanh, "soft_clip": soft_clip},
    "likelihood": {"bernoulli": lambda: Bernoulli, "gaussian": gaussian},
    "target": {
        "gaussian_regression": lambda table, noise_variance: GaussianRegression(table[:, :-1], noise_variance),
    },
}


@dataclass(frozen=True)
class Problem:
    """What an experiment trains.

    Attributes:
        models: one per seed.
        estimator: of the gradient.
        train: (N, *event).
        test: the same of data that training never sees; None if the data set has none.
        optimizer: (parameters, lr) -> optimizer.
    """

    models: tuple[nn.Module, ...]
    estimator: Estimator
    train: Tensor
    test: Tensor | None
    optimizer: OptimizerFactory

    def loss(self, experiment: Experiment) -> Loss:
        """The loss of the first member."""
        return Loss(self.models[0], self.estimator, experiment.objective)  # pyright: ignore[reportArgumentType]


def build(experiment: Experiment, **found: Any) -> Problem:
    """Make what an experiment trains; `directory` and `progress` say how data sets in files are found.

    Returns:
        The problem.

    Raises:
        ValueError: if a part does not take an option, or the data do not fit.
    """
    settings = {"dtype": getattr(torch, experiment.dtype), "device": computing_device(experiment.device)}
    train, test = (_data(experiment.data, split, settings | found) for split in ("train", "test"))
    assert train is not None
    table = train
    models = tuple(_model(experiment.model, table, settings | {"seed": seed}) for seed in experiment.seeds)
    if isinstance(models[0], MeanFieldModel):
        train, test = table[:, -1].expand(1, -1), None  # one example: the response
    optimizer = OPTIMIZERS[experiment.optimizer.name]
    rule = partial(optimizer, **options_of(experiment.optimizer, optimizer, OWNED_OF_OPTIMIZER))
    return Problem(models, ESTIMATORS[experiment.estimator], train, test, rule)


def require_parts(experiment: Experiment) -> None:
    """Refuse an experiment with a name that nothing has, or an option that a part does not take; nothing is made."""
    options_of(experiment.data, DATA[experiment.data.name], OWNED_OF_DATA)
    model = options_of(experiment.model, MODELS[experiment.model.name], OWNED_OF_MODEL)
    for name, value in model.items():
        if (spec := _spec(name, value)) is not None:
            options_of(spec, _option(name, spec), ("table",))
    options_of(experiment.optimizer, OPTIMIZERS[experiment.optimizer.name], OWNED_OF_OPTIMIZER)
    _ = ESTIMATORS[experiment.estimator]


def _data(part: ComponentSpec, split: str, settings: Mapping[str, Any]) -> Tensor | None:
    factory = DATA[part.name]
    options = options_of(part, factory, OWNED_OF_DATA)
    if split == "test" and "split" not in signature(factory).parameters:
        return None
    offered = {"split": split, "generator": torch.Generator().manual_seed(derived_seed(0, "data"))} | dict(settings)
    offered = {name: value for name, value in offered.items() if value is not None}
    rows = made(part.name, factory, offered | options)
    if not isinstance(rows, Tensor) or rows.ndim < 2 or not len(rows):
        raise ValueError(f"The data set {part.name} must be a tensor (N, *event), and is {shown(rows)}.")
    small = rows.dtype == torch.uint8 and settings["device"].type != "cpu"
    return rows.to(settings["device"]) if small else rows


def _model(part: ComponentSpec, table: Tensor, settings: Mapping[str, Any]) -> nn.Module:
    factory = MODELS[part.name]
    chosen = {name: _chosen(name, value, table) for name, value in options_of(part, factory, OWNED_OF_MODEL).items()}
    generator = torch.Generator().manual_seed(START + settings["seed"])
    offered = {"event": tuple(table.shape[1:]), "features": table.shape[-1], "generator": generator} | dict(settings)
    model = made(part.name, factory, offered | chosen)
    if not isinstance(model, nn.Module):
        raise ValueError(f"The model {part.name} must be a torch module, and is {shown(model)}.")
    return model


def _spec(name: str, value: Any) -> ComponentSpec | None:
    """The part that an option of a model is; a bare name will do where only parts will."""
    if name in OPTIONS and isinstance(value, str):
        return ComponentSpec(value)
    if name in OPTIONS and not isinstance(value, ComponentSpec):
        raise ValueError(f"{name} must be a name, or an object with a 'name', got {shown(value)}.")
    return value if isinstance(value, ComponentSpec) else None


def _option(name: str, spec: ComponentSpec) -> Callable[..., Any]:
    known = OPTIONS.get(name, {})
    if spec.name not in known:
        raise ValueError(f"There is no {name} {spec.name!r}; known: {', '.join(known) or 'none'}.")
    return known[spec.name]


def _chosen(name: str, value: Any, table: Tensor) -> Any:
    spec = _spec(name, value)
    if spec is None:
        return value
    factory = _option(name, spec)
    return made(spec.name, factory, {"table": table} | options_of(spec, factory, ("table",)))
