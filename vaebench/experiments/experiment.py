"""An experiment as data: frozen, the same as JSON, and named by a hash of it."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

from vaebench.experiments.limits import require_device, require_feasible, require_seeds, require_small
from vaebench.experiments.typed import hints, require_finite, typed
from vaebench.gradients.objectives import Objective
from vaebench.support.checks import positive_integer
from vaebench.support.texts import printable, shown
from vaebench.training.schedules import Schedule

DTYPES = ("float32", "float64")
SHORT = {"K": "objective.samples", "alpha": "objective.alpha", "beta": "objective.beta", "B": "batch_size"}
SHORT |= {"C": "schedule.scale", "activations": "model.activations"}


@dataclass(frozen=True)
class ComponentSpec:
    """A registered part and the arguments it is made with, which may be parts themselves.

    Attributes:
        name: in its registry.
        options: arguments by name, as JSON holds them, or parts.

    >>> ComponentSpec("conv_vae", {"size": 32, "activations": ComponentSpec("soft_clip", {"sharpness": 2.0})}).to_dict()
    {'name': 'conv_vae', 'size': 32, 'activations': {'name': 'soft_clip', 'sharpness': 2.0}}
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The part as a JSON object, its name under "name"."""
        made = {
            key: value.to_dict() if isinstance(value, ComponentSpec) else value for key, value in self.options.items()
        }
        return {"name": self.name} | made

    @staticmethod
    def from_dict(plain: Any) -> "ComponentSpec":
        """The part that `to_dict` wrote; a bare string is a part without options."""
        if isinstance(plain, str):
            return ComponentSpec(printable("name of a part", plain))
        if not isinstance(plain, Mapping) or not isinstance(plain.get("name"), str):
            raise ValueError(f'A part must be a name, or an object with a "name", got {shown(plain)}.')
        rest = {printable("option", key): value for key, value in plain.items() if key != "name"}
        name = printable("name of a part", plain["name"])
        for key, value in rest.items():
            require_finite(f"{name}.{key}", value)
            require_small(f"{name}.{key}", value)
        return ComponentSpec(name, {key: _part_or_value(value) for key, value in rest.items()})


def _part_or_value(value: Any) -> Any:
    return ComponentSpec.from_dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Measures:
    """How much is measured at a checkpoint.

    Attributes:
        per_decade: checkpoints in a factor of ten of the steps.
        replicates: R of the squared gradient's U-statistic.
        rows: examples in each replicate.
        bound_rows: examples on which a bound is evaluated; each seed draws its own of the training set.
        likelihood_samples: K of the test log-likelihood.
        likelihood_rows: examples on which it is evaluated, at the end.

    Raises:
        ValueError: if one of them is not a positive integer.
    """

    per_decade: int = 8
    replicates: int = 16
    rows: int = 256
    bound_rows: int = 2000
    likelihood_samples: int = 5000
    likelihood_rows: int = 100

    def __post_init__(self):
        for name, value in asdict(self).items():
            positive_integer(name, value)


@dataclass(frozen=True)
class Experiment:
    """One training run of every seed, and what is measured of it.

    Attributes:
        data: a data set.
        model: a model; each seed draws its own start.
        objective: the bound.
        estimator: name of the gradient estimator.
        optimizer: an optimizer.
        schedule: step sizes gamma_n.
        steps: n.
        batch_size: B.
        seeds: one member each.
        probes: names of what is measured at checkpoints, of `vaebench.experiments.probes.catalogue`.
        measures: how much.
        dtype: "float32" or "float64".
        device: "cpu", "cuda", ...
        compiled: whether steps are compiled, which takes many seconds at first; where that fails they are eager and the
            result says so. If not, steps of vaebench's own parts are recorded: eager ones called without Python.

    Raises:
        ValueError: if a value is out of range.
    """

    data: ComponentSpec
    model: ComponentSpec
    objective: Objective
    estimator: str
    optimizer: ComponentSpec
    schedule: Schedule
    steps: int
    batch_size: int
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    probes: tuple[str, ...] = ("gradient", "bounds", "largest_parameter", "log_likelihood")
    measures: Measures = Measures()
    dtype: str = "float32"
    device: str = "cpu"
    compiled: bool = False

    def __post_init__(self):
        positive_integer("steps", self.steps)
        positive_integer("batch_size", self.batch_size)
        require_seeds(self.seeds)
        require_device(self.device)
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {shown(self.dtype)}.")
        if not isinstance(self.compiled, bool):
            raise ValueError(f"compiled must be true or false, got {shown(self.compiled)}.")
        sizes = {"steps": self.steps, "batch_size": self.batch_size, "samples": self.objective.samples}
        require_feasible(sizes | {"seeds": len(self.seeds)} | asdict(self.measures))

    def to_dict(self) -> dict[str, Any]:
        """The experiment as a JSON object."""
        names = ("estimator", "steps", "batch_size", "dtype", "device", "compiled")
        simple = {name: getattr(self, name) for name in names}
        parts = {name: getattr(self, name).to_dict() for name in ("data", "model", "optimizer", "schedule")}
        settings = {name: asdict(getattr(self, name)) for name in ("objective", "measures")}
        made = parts | simple | settings | {"seeds": list(self.seeds), "probes": list(self.probes)}
        return {one.name: made[one.name] for one in fields(self)}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> "Experiment":
        """The experiment that `to_dict` wrote; what has a default may be missing, and what is wrong is a ValueError."""
        if not isinstance(plain, Mapping):
            raise ValueError(f"An experiment must be an object, got {shown(plain)}.")
        readers: dict[str, Any] = dict.fromkeys(("data", "model", "optimizer"), ComponentSpec.from_dict)
        readers |= {"objective": _reader(Objective), "schedule": _reader(Schedule), "measures": _reader(Measures)}
        known, annotated = {one.name: one for one in fields(Experiment)}, hints(Experiment)
        for name in plain:
            if name not in known:
                raise ValueError(f"An experiment has no field {shown(name)}; it has {_names(Experiment)}.")
        for name, one in known.items():
            if name not in plain and one.default is MISSING and one.default_factory is MISSING:
                raise ValueError(f"The experiment has no {name!r}, and needs one.")
        return Experiment(
            **{
                name: readers[name](value) if name in readers else typed(name, value, annotated[name])
                for name, value in plain.items()
            }
        )

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that name the experiment's result."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _names(kind: type) -> str:
    return ", ".join(one.name for one in fields(kind))


def _reader(kind: Any) -> Any:
    needed = {one.name for one in fields(kind) if one.default is MISSING}

    def read(plain: Any) -> Any:
        known = hints(kind)
        if not isinstance(plain, Mapping) or not needed <= set(plain) <= set(known):
            raise ValueError(f"{kind.__name__} takes {_names(kind)}, got {shown(plain)}.")
        return kind(**{name: typed(name, value, known[name]) for name, value in plain.items()})

    return read


class Arm(NamedTuple):
    """One experiment of a study, and what it is called there."""

    label: str
    experiment: Experiment

    @property
    def hash(self) -> str:
        """Of the experiment."""
        return self.experiment.hash


def grid(base: Experiment, **axes: Sequence[Any]) -> tuple[Arm, ...]:
    """Every combination of some settings, the others as in `base`.

    The axes are values by K, B, alpha, beta, C, activations, or by the name of a field; there must be such a setting.

    Returns:
        The arms, labelled with what varies.
    """
    arms = []
    for values in itertools.product(*axes.values()):
        experiment = base
        for name, value in zip(axes, values, strict=True):
            experiment = _with(experiment, SHORT.get(name, name), value)
        arms.append(Arm(", ".join(map(_label, axes, values)), experiment))
    return tuple(arms)


def _with(experiment: Experiment, path: str, value: Any) -> Experiment:
    name, _, inner = path.partition(".")
    if name not in {one.name for one in fields(Experiment)}:
        raise ValueError(f"An experiment has no setting {name!r}; it has {_names(Experiment)}, {', '.join(SHORT)}.")
    old = getattr(experiment, name)
    if inner and isinstance(old, ComponentSpec):
        value = replace(old, options={**old.options, inner: value})
    elif inner:
        value = replace(old, **{inner: value})
    return replace(experiment, **{name: value})


def _label(name: str, value: Any) -> str:
    if isinstance(value, ComponentSpec):
        return " ".join([value.name, *(f"{key}={option}" for key, option in value.options.items())])
    return value if isinstance(value, str) else f"{name}={value}"
