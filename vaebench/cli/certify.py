"""`vaebench certify`: one page about an estimator: right, cost, noise, guarantee."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaebench.cli.common import AsJson, aside, complete, own_process, print_json, refusing, say, shell
from vaebench.support.texts import sentence

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vaebench.gradients import Objective
    from vaebench.report.certificate import Certificate

    Run = Callable[[Callable[[str, str], None]], Certificate]

ROWS = 32  # of the data, that a black box is given
OWN = "or package.module:function for one of your own"


def certify(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]", help=f"Gradient estimator, by name, {OWN}.", autocompletion=complete("estimator")
        ),
    ] = None,
    pyro: Annotated[str | None, typer.Option(help="module:function that returns (model, guide, ELBO) of Pyro.")] = None,
    numpyro: Annotated[str | None, typer.Option(help="The same of NumPyro.")] = None,
    pythae: Annotated[str | None, typer.Option(help="module:function that returns a model of Pythae.")] = None,
    black_box: Annotated[str | None, typer.Option(help="module:function that returns a box in NumPy.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Model, by name, {OWN} that returns it.", autocompletion=complete("model"))
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=f"Data set, by name, {OWN} that returns it.", autocompletion=complete("data set"))
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples K of the bound.")] = 1,
    alpha: Annotated[float, typer.Option(help="1 is the ELBO, 0 the IWAE bound, between them VR-IWAE.")] = 1.0,
    beta: Annotated[float, typer.Option(help="Weight of the Kullback-Leibler term.")] = 1.0,
    optimizer: Annotated[
        str, typer.Option(help="Optimizer of the runs, by name.", autocompletion=complete("optimizer"))
    ] = "sgd",
    scale: Annotated[float, typer.Option(help="C of the steps C / sqrt(n) on your model.")] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Batch size B.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="One minute in place of ten.")] = False,
    name: Annotated[str | None, typer.Option(help="Name on the certificate; default the target's own.")] = None,
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

    Raises:
        Exit: with 1 or 2, as said.
    """
    with refusing("certify"), aside():
        boxes = {"pyro": pyro, "numpyro": numpyro, "pythae": pythae, "black-box": black_box}
        kind, target_name = _only({"estimator": target} | boxes)
        _require_feasible(samples, batch_size, seed)
        options = {"optimizer": optimizer, "scale": scale, "batch_size": batch_size, "seed": seed}
        options |= {"level": "quick" if quick else "default", "name": name or _called(target_name)}
        try:
            called, run = _asked(kind, target_name, model, data, (samples, alpha, beta), options)
            place = _place(out, called, parquet)
            earlier = (place / "index.html").exists()
            made = run(_progress())
        except KeyboardInterrupt:
            say("certify", "Stopped before its end, and nothing was written; the same command begins again.")
            raise typer.Exit(1) from None
        written, broke = _saved(made, place, parquet)
    if as_json:
        print_json(made.to_dict())
    elif as_markdown:
        typer.echo(made.markdown(), nl=False)
    else:
        from vaebench.report.certificate.terminal import lines

        for line in lines(made.findings, verbose):
            typer.echo(line)
        if written is not None:
            typer.echo(f"\nThe page: {shell(written)}{', in place of an earlier one' if earlier else ''}")
    if broke:
        say("certify", f"{broke} No file was written; this is the answer all the same.")
    sys.exit(bool(broke) or not made.passed)


def _saved(made: Certificate, place: Path, parquet: bool) -> tuple[Path | None, str]:
    """The page's path; or None and why nothing could be written, which must not take the answer with it."""
    try:
        return made.save(place, parquet=parquet), ""
    except (OSError, ValueError) as trouble:
        return None, sentence(trouble)


def _only(asked: Mapping[str, str | None]) -> tuple[str, str]:
    named = [(kind, name) for kind, name in asked.items() if name is not None]
    if len(named) != 1:
        raise ValueError("Name one thing to certify: an estimator, or one of --pyro, --numpyro, --pythae, --black-box.")
    return named[0]


def _called(target: str) -> str:
    """What package.module:function is called on a page: the function, or of "make" the module."""
    path, _, function = target.rpartition(":")
    return function if function != "make" or not path else path.rpartition(".")[2]


def _require_feasible(samples: int, batch_size: int, seed: int) -> None:
    from vaebench.experiments.experiment import Measures
    from vaebench.experiments.limits import require_feasible, require_seeds
    from vaebench.support.checks import positive_integer

    require_seeds((seed,))
    sizes = {"samples": positive_integer("samples", samples), "batch_size": positive_integer("batch_size", batch_size)}
    require_feasible(vars(Measures()) | sizes | {"steps": 1, "seeds": 1})


def _place(out: Path, name: str, parquet: bool) -> Path:
    """Where the certificate is to stand, once it is known that it can."""
    from vaebench.report.certificate.certificate import require_parquet, require_place
    from vaebench.report.study import file_name

    place = out / file_name(name)
    require_place(place)
    if parquet:
        require_parquet()
    return place


def _asked(
    kind: str,
    target: str,
    model: str | None,
    data: str | None,
    objective: tuple[int, float, float],
    options: dict[str, Any],
) -> tuple[str, Run]:
    """The name on the certificate, and what makes it, once everything that can be refused at once has been."""
    from vaebench.cli.parts import build_data, build_model
    from vaebench.gradients import Objective

    own_process()
    rows = made = None
    if kind != "estimator" or model is not None or data is not None:
        rows = build_data(data or "linear_gaussian", options["seed"])
        if kind == "estimator" or model is not None:
            made = build_model(model or "linear_vae", options["seed"] + 1, rows)
        if model is not None and data is None:
            _require_default_fits(made, rows)
    bound = Objective(*objective)
    if kind == "estimator":
        return _estimator(target, made, rows, bound, options | {"model_name": model})
    assert rows is not None
    return _box(kind, target, made, rows, bound, options)


def _require_default_fits(model: nn.Module | None, rows: Tensor) -> None:
    """Refuse the rows that are taken where none are named, by their name, if they do not fit."""
    from vaebench.models import check_input

    try:
        check_input(model, rows)  # pyright: ignore[reportArgumentType]
    except ValueError as refusal:
        why = "those are rows of linear_gaussian; name your data by --data"
        raise ValueError(f"{str(refusal).rstrip('.')}: {why}.") from None


def _estimator(
    target: str, model: nn.Module | None, rows: Tensor | None, bound: Objective, options: Mapping[str, Any]
) -> tuple[str, Run]:
    from vaebench.experiments.certifying import ask, find
    from vaebench.gradients import ESTIMATORS
    from vaebench.report.certificate import Certificate

    question = ask(ESTIMATORS[target], model, rows, bound, **options)
    return question.name, lambda progress: Certificate(find(question, progress))


def _box(
    kind: str, target: str, model: nn.Module | None, rows: Tensor, bound: Objective, options: Mapping[str, Any]
) -> tuple[str, Run]:
    import torch

    from vaebench.cli.parts import build_claim
    from vaebench.models import as_input, check_input
    from vaebench.report.certificate import certify_box

    like, few = next(iter([] if model is None else model.parameters()), torch.zeros(())), rows[:ROWS]
    if model is not None:
        few = check_input(model, few)  # pyright: ignore[reportArgumentType]
    few = as_input(few, like)
    few = few.to(like) if model is not None or not few.is_floating_point() else few
    claim = build_claim(kind, target, options["seed"], few, bound, model)
    chosen = {key: options[key] for key in ("level", "scale", "seed", "name")}
    return options["name"], lambda progress: certify_box(claim, few.numpy(), progress=progress, **chosen)


def _progress() -> Callable[[str, str], None]:
    """Stages on stderr, with the seconds since the beginning."""
    begun = time.monotonic()

    def say(section: str, line: str) -> None:
        typer.echo(f"{time.monotonic() - begun:6.1f} s  {section:<9}  {line}", err=True)

    return say
