"""`vaebench certify`: one page about an estimator: right, cost, noise, guarantee."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaebench.cli.common import AsJson, print_json, refusing

if TYPE_CHECKING:
    from vaebench.report.certificate import Certificate

ROWS = 32  # of the data, that a black box is given
OWN = "or package.module:function for one of your own"


def certify(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help=f"Gradient estimator, by name, {OWN}.")
    ] = None,
    pyro: Annotated[str | None, typer.Option(help="module:function that returns (model, guide, ELBO) of Pyro.")] = None,
    numpyro: Annotated[str | None, typer.Option(help="The same of NumPyro.")] = None,
    black_box: Annotated[str | None, typer.Option(help="module:function that returns a box in NumPy.")] = None,
    model: Annotated[str | None, typer.Option(help=f"Model, by name, {OWN} that returns it.")] = None,
    data: Annotated[str | None, typer.Option(help=f"Data set, by name, {OWN} that returns it.")] = None,
    samples: Annotated[int, typer.Option(help="Samples K of the bound.")] = 1,
    alpha: Annotated[float, typer.Option(help="1 is the ELBO, 0 the IWAE bound, between them VR-IWAE.")] = 1.0,
    beta: Annotated[float, typer.Option(help="Weight of the Kullback-Leibler term.")] = 1.0,
    optimizer: Annotated[str, typer.Option(help="Optimizer of the runs, by name.")] = "sgd",
    scale: Annotated[float, typer.Option(help="C of the steps C / sqrt(n) on your model.")] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Batch size B.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="One minute in place of ten.")] = False,
    out: Annotated[Path, typer.Option(help="Directory of certificates.")] = Path("certificates"),
    parquet: Annotated[bool, typer.Option("--parquet", help="Also write numbers.parquet.")] = False,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print how every gate was measured.")] = False,
) -> None:
    """Certify an estimator: is it right, what does it cost, how noisy is it, does training keep its guarantee?

    Writes a page, JSON, Markdown, CSV and a badge to certificates/<name>. Exits with 0 if every gate passed, with 1
    if one failed or had no power, with 2 if the question cannot be asked. Examples:

        vaebench certify pathwise --quick

        vaebench certify mine:antithetic --model mine:model --data digits

        vaebench certify doubly_reparameterized --samples 5 --alpha 0 --model mlp_vae --data digits

        vaebench certify --pyro mypackage:make --data digits
    """
    with refusing("certify", ValueError, LookupError, ImportError, AttributeError, OSError, TypeError, RuntimeError):
        options = {"optimizer": optimizer, "scale": scale, "batch_size": batch_size, "seed": seed}
        asked = {"estimator": target, "pyro": pyro, "numpyro": numpyro, "black-box": black_box}
        options |= {"level": "quick" if quick else "default"}
        made = _certify(*_only(asked), model, data, (samples, alpha, beta), options)
        written = made.save(out / made.file_name, parquet=parquet)
    if as_json:
        print_json(made.to_dict())
    elif as_markdown:
        typer.echo(made.markdown(), nl=False)
    else:
        from vaebench.report.certificate.terminal import lines

        for line in lines(made.findings, verbose):
            typer.echo(line)
        typer.echo(f"\nThe page: {shlex.quote(str(written))}")
    sys.exit(not made.passed)


def _only(asked: dict[str, str | None]) -> tuple[str, str]:
    named = [(kind, name) for kind, name in asked.items() if name is not None]
    if len(named) != 1:
        raise ValueError("Name one thing to certify: an estimator, or one of --pyro, --numpyro and --black-box.")
    return named[0]


def _certify(
    kind: str,
    name: str,
    model: str | None,
    data: str | None,
    objective: tuple[int, float, float],
    options: dict[str, Any],
) -> Certificate:
    import torch

    from vaebench.cli.parts import build_claim, build_data, build_model
    from vaebench.gradients import ESTIMATORS, Objective
    from vaebench.report.certificate import certify as certify_estimator
    from vaebench.report.certificate import certify_box

    torch.set_num_threads(1)  # a command owns its process; timings are those of one core
    estimator = ESTIMATORS[name] if kind == "estimator" else None
    made, rows, seed = None, None, options["seed"]
    if kind != "estimator" or model is not None or data is not None:
        rows = build_data(data or "linear_gaussian", seed)
        if kind == "estimator" or model is not None:
            made = build_model(model or "linear_vae", seed + 1, rows)
    called, bound = name.rpartition(":")[2], Objective(*objective)
    if estimator is not None:
        return certify_estimator(
            estimator, made, rows, bound, name=called, model_name=model, progress=_progress(), **options
        )
    assert rows is not None
    few = rows[:ROWS]
    few = few if made is None else few.to(next(made.parameters()).dtype)
    claim = build_claim(kind, name, seed, few, bound, made)
    chosen = {key: options[key] for key in ("level", "scale", "seed")}
    return certify_box(claim, few.numpy(), name=called, progress=_progress(), **chosen)


def _progress() -> Callable[[str, str], None]:
    """Stages on stderr, with the seconds since the beginning."""
    begun = time.monotonic()

    def say(section: str, line: str) -> None:
        typer.echo(f"{time.monotonic() - begun:6.1f} s  {section:<9}  {line}", err=True)

    return say
