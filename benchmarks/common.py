"""What the suites share: profiles, devices, problems, and what an older commit lacks."""

import contextlib
import importlib
import os
import time
import timeit
from collections.abc import Callable
from importlib import metadata
from statistics import median
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import torch

SEED = 20250503
ROUNDS = 5
T = TypeVar("T")
FORMERLY = {  # modules of today by what they were, or were part of, up to version 0.1
    "data.sampling": ("sampling",),
    "gradients.estimators": ("estimators",),
    "gradients.loss": ("estimators", "moments"),
    "gradients.memory": ("memory",),
    "gradients.objectives": ("objectives",),
    "measures.cost": ("cost",),
    "measures.moments": ("moments",),
    "measures.probes": ("probes",),
    "models.activations": ("activations",),
    "theory.problems.linear": ("theory.linear",),
    "theory.problems.linear_noise": ("theory.linear_noise",),
    "theory.problems.regression": ("theory.bbvi",),
    "theory.quadrature": ("theory.iwae",),
    "training.compilation": ("compilation",),
    "training.fleet": ("fleet",),
    "training.optimizers": ("optimizers",),
    "training.schedules": ("schedules",),
    "training.steps": ("stepping",),
}


def by_profile(quick: T, full: T) -> T:
    """The choice of the profile that VAEBENCH_PROFILE names; static once the process has started."""
    choices = {"quick": quick, "full": full}
    profile = os.environ.get("VAEBENCH_PROFILE", "quick")
    if profile not in choices:
        raise ValueError(f"VAEBENCH_PROFILE must be one of {', '.join(choices)}, got {profile!r}.")
    return choices[profile]


DEVICES = by_profile(["cpu"], ["cpu", "cuda"])


def part(module: str) -> SimpleNamespace:
    """What a module of vaebench has, under its name of today, or n/a on a commit that does not have it yet."""
    for names in ((module,), FORMERLY.get(module, ())):
        with contextlib.suppress(_Missing):
            found = [vars(_imported(name)) for name in names]
            if found:
                return SimpleNamespace(**{key: value for one in found for key, value in one.items()})
    raise NotImplementedError(f"this commit has no vaebench.{module}")


class _Missing(Exception):
    """A module that this commit does not have."""


def _imported(name: str) -> ModuleType:
    asked = f"vaebench.{name}"
    try:
        return importlib.import_module(asked)
    except ModuleNotFoundError as missing:
        absent = missing.name or ""
        if not f"{asked}.".startswith(f"{absent}."):
            raise  # what the module itself needs is not there: that is a fault, and not an older commit
        if not _installed() or _recorded(absent):
            raise ImportError(f"This installation of vaebench is broken: it has no {absent}.") from missing
        raise _Missing from missing


def _installed() -> bool:
    """Whether there is a vaebench at all, and not only what is left of its directory."""
    try:
        return importlib.import_module("vaebench").__file__ is not None
    except ModuleNotFoundError:
        return False


def _recorded(module: str) -> bool:
    """Whether the installed distribution lists a module among its files."""
    try:
        files = {file.as_posix() for file in metadata.files("vaebench") or ()}
    except metadata.PackageNotFoundError:
        return False
    path = module.replace(".", "/")
    return not files.isdisjoint({f"{path}.py", f"{path}/__init__.py"})


def needs(module: str, name: str) -> Callable[..., None]:
    """The setup of a benchmark that is n/a on a commit whose module lacks a name; asv takes n/a from a setup alone."""

    def setup(*_: object) -> None:
        if not hasattr(part(module), name):
            raise NotImplementedError(f"this commit has no vaebench.{module}.{name}")

    return setup


def _preload() -> None:
    """Import once, in the server that asv forks, what every benchmark would else import again, 3 s a time."""
    for module in ("measures.cost", "data", "measures.probes", "training.fleet", "theory"):
        with contextlib.suppress(NotImplementedError):
            part(module)
    for module in ("torch._dynamo", "sklearn.datasets", "PIL.Image"):
        importlib.import_module(module)


_preload()


def generator(device: str = "cpu") -> torch.Generator:
    """A generator with the suites' seed."""
    return torch.Generator(device).manual_seed(SEED)


def wall_clock(device: str) -> Callable[[], float]:
    """asv's timer for a device: on CUDA it waits for the device first."""
    return part("measures.cost").clock(device) if device == "cuda" else timeit.default_timer


def require_device(device: str) -> None:
    """n/a where the device is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise NotImplementedError("no CUDA device")


def mlp(device: str) -> tuple[Any, torch.Tensor]:
    """The 64-200-200-50 perceptron and the handwritten digits."""
    model = part("models").mlp_vae((8, 8), generator=generator(), device=device)
    return model, part("data").digits(device=device)


def conv(size: int, device: str, sharpness: float | None = None) -> tuple[Any, torch.Tensor]:
    """The paper's convolutional net, ReLU or soft-clipped, and natural-image patches."""
    activations = part("models.activations")
    chosen = activations.relu() if sharpness is None else activations.soft_clip(sharpness)
    model = part("models").conv_vae(size, activations=chosen, generator=generator(), device=device)
    return model, part("data").patches(size, device=device)


def conv32(device: str) -> tuple[Any, torch.Tensor]:
    """`conv` for 32 x 32 pixels with ReLU."""
    return conv(32, device)


def batch(data: torch.Tensor, size: int) -> torch.Tensor:
    """So many examples, spread evenly over the data."""
    return data[torch.linspace(0, len(data) - 1, size).long()]


def seconds(run: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(first: Callable[[], object], second: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median over rounds of the time of the first over that of the second, after one call of each."""
    first(), second()
    return median(seconds(first) / seconds(second) for _ in range(rounds))
