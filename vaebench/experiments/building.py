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
from vaebench.gradients.estimators import ESTIMATORS, Estimator
from vaebench.gradients.loss import Loss
from vaebench.models import MODELS, GaussianRegression, MeanFieldModel, gaussian
from vaebench.models.activations import relu, soft_clip, tanh
from vaebench.models.distributions import Bernoulli
from vaebench.support.checks import available_device
from vaebench.training.optimizers import OPTIMIZERS, OptimizerFactory

OWNED = ("split", "dtype", "device", "generator", "seed", "seeds", "event", "features", "progress")
START = 2**31  # what separates a seed's start from its training
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
    """Make what an experiment trains.

    Args:
        experiment: the experiment.
        found: how data sets in files are found: `directory`, `progress`.

    Returns:
        The problem.

    Raises:
        ValueError: if a part does not take an option, or the data do not fit.
    """
    settings = {"dtype": getattr(torch, experiment.dtype), "device": available_device(experiment.device)}
    train, test = (_data(experiment.data, split, settings | found) for split in ("train", "test"))
    assert train is not None
    table = train
    models = tuple(_model(experiment.model, table, settings | {"seed": seed}) for seed in experiment.seeds)
    if isinstance(models[0], MeanFieldModel):
        train, test = table[:, -1].expand(1, -1), None  # one example: the response
    optimizer = OPTIMIZERS[experiment.optimizer.name]
    require_options(experiment.optimizer, optimizer, ("parameters", "lr"))
    rule = partial(optimizer, **experiment.optimizer.options)
    return Problem(models, ESTIMATORS[experiment.estimator], train, test, rule)


def _data(part: ComponentSpec, split: str, settings: Mapping[str, Any]) -> Tensor | None:
    factory = DATA[part.name]
    require_options(part, factory, ())
    taken = signature(factory).parameters
    if split == "test" and "split" not in taken:
        return None
    offered = {"split": split, "generator": torch.Generator().manual_seed(0)} | dict(settings)
    options = {name: value for name, value in offered.items() if name in taken and value is not None}
    rows = _made(part, lambda: factory(**(options | dict(part.options))))
    small = isinstance(rows, Tensor) and rows.dtype == torch.uint8 and settings["device"].type != "cpu"
    if not isinstance(rows, Tensor):
        raise ValueError(f"The data set {part.name} must be a tensor, and is a {type(rows).__name__}.")
    return rows.to(settings["device"]) if small else rows


def _model(part: ComponentSpec, table: Tensor, settings: Mapping[str, Any]) -> nn.Module:
    factory = MODELS[part.name]
    _require_options(part, factory, ("dtype", "device", "generator"))
    made = {name: _option(name, value, table) for name, value in part.options.items()}
    generator = torch.Generator().manual_seed(START + settings["seed"])
    offered = {"event": tuple(table.shape[1:]), "features": table.shape[-1], "generator": generator} | dict(settings)
    taken = signature(factory).parameters
    model = factory(**({name: value for name, value in offered.items() if name in taken} | made))
    assert isinstance(model, nn.Module)
    return model


def _option(name: str, value: Any, table: Tensor) -> Any:
    if not isinstance(value, ComponentSpec):
        return value
    known = OPTIONS.get(name, {})
    if value.name not in known:
        raise ValueError(f"There is no {name} {value.name!r}; known: {', '.join(known) or 'none'}.")
    factory = known[value.name]
    _require_options(value, factory, ("table",))
    return factory(**({"table": table} if "table" in signature(factory).parameters else {}), **value.options)


def _require_options(part: ComponentSpec, factory: Callable[..., Any], given: tuple[str, ...]) -> None:
    taken = [name for name in signature(factory).parameters if name not in given]
    unknown = sorted(set(part.options) - set(taken))
    if unknown:
        raise ValueError(f"{part.name} takes no option {unknown[0]!r}; it takes {', '.join(taken) or 'none'}.")
