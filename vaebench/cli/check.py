"""`vaebench check`: certify a model and an estimator."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaebench.cli.common import AsJson, print_json, print_verdicts, refusing

if TYPE_CHECKING:
    from vaebench.gates import Verdict

OWN = "or package.module:function for one of your own"


def check(
    estimator: Annotated[str, typer.Option(help=f"Gradient estimator, by name, {OWN}.")] = "pathwise",
    model: Annotated[str, typer.Option(help=f"Model, by name, {OWN} that returns it.")] = "linear_vae",
    data: Annotated[str, typer.Option(help=f"Data set, by name, {OWN} that returns it.")] = "linear_gaussian",
    samples: Annotated[int, typer.Option(help="Samples K of the bound.")] = 1,
    alpha: Annotated[float, typer.Option(help="1 is the ELBO, 0 the IWAE bound, between them VR-IWAE.")] = 1.0,
    beta: Annotated[float, typer.Option(help="Weight of the Kullback-Leibler term.")] = 1.0,
    latents: Annotated[int | None, typer.Option(help="Latent dimension; default the model's.")] = None,
    optimizer: Annotated[str, typer.Option(help="Optimizer, by name.")] = "sgd",
    scale: Annotated[float, typer.Option(help="C of the steps C / sqrt(n).")] = 0.01,
    steps: Annotated[int, typer.Option(help="Steps of the run.")] = 2500,
    batch_size: Annotated[int, typer.Option(help="Batch size B.")] = 8,
    members: Annotated[int, typer.Option(help="Seeds trained at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Certify a model and an estimator: run every gate that applies, print the verdicts.

    Exits with 1 if a gate fails, with 2 if the question cannot be asked. Examples:

        vaebench check --estimator leave_one_out --samples 5

        vaebench check --alpha 0 --samples 5 --latents 1 --estimator doubly_reparameterized

        vaebench check --estimator mypackage.estimators:antithetic --optimizer adam
    """
    with refusing("check"):
        verdicts, left_out = _certify(
            (model, data, estimator),
            {"samples": samples, "alpha": alpha, "beta": beta},
            {"latents": latents},
            {"optimizer": optimizer, "steps": steps, "batch_size": batch_size, "members": members, "seed": seed},
            scale,
        )
    if as_json:
        print_json([verdict.to_dict() for verdict in verdicts])
    else:
        print_verdicts(verdicts)
        typer.echo("\n".join(left_out))
    sys.exit(not all(verdict.passed for verdict in verdicts))


def _certify(
    names: tuple[str, str, str],
    objective: Mapping[str, Any],
    shape: Mapping[str, Any],
    settings: Mapping[str, Any],
    scale: float,
) -> tuple[list[Verdict], list[str]]:
    """The verdicts, and what was left out and why."""
    from rich.console import Console

    from vaebench.data import DATA
    from vaebench.gates import certify
    from vaebench.gradients.estimators import ESTIMATORS
    from vaebench.gradients.objectives import Objective
    from vaebench.models import MODELS
    from vaebench.training.schedules import inverse_sqrt

    model_name, data_name, estimator_name = names
    x = _build(_find(DATA, data_name), settings["seed"], {})
    features = {"event": tuple(x.shape[1:]), "features": x.shape[1]}
    model = _build(_find(MODELS, model_name), settings["seed"] + 1, features | {k: v for k, v in shape.items() if v})
    console, left_out = Console(stderr=True), []
    with console.status("starting") as status:

        def progress(line: str) -> None:
            status.update(line)
            left_out.extend([line] if line.startswith("left out") else [])

        verdicts = certify(
            model,
            _find(ESTIMATORS, estimator_name),
            Objective(**objective),
            x,
            schedule=inverse_sqrt(scale),
            progress=progress,
            **settings,
        )
    return verdicts, left_out


def _find(known: Mapping[str, Any], name: str) -> Any:
    """A registered part, or package.module:function, found from the current directory too."""
    if ":" not in name:
        return known[name]
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    return getattr(importlib.import_module(module), attribute)


def _build(factory: Callable[..., Any], seed: int, offered: Mapping[str, Any]) -> Any:
    """Call a factory with what it takes of a generator, float64 and the arguments offered."""
    import torch

    taken = inspect.signature(factory).parameters
    offered = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64} | dict(offered)
    return factory(**{name: value for name, value in offered.items() if name in taken})
