"""`vaebench check`: certify a model and an estimator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaebench.cli.common import AsJson, aside, complete, own_process, print_json, print_verdicts, refusing, uncollected
from vaebench.cli.progress import status

if TYPE_CHECKING:
    from torch import nn

    from vaebench.gates import Stage, Verdict

OWN = "or package.module:function for one of your own"


def check(
    estimator: Annotated[
        str, typer.Option(help=f"Gradient estimator, by name, {OWN}.", autocompletion=complete("estimator"))
    ] = "pathwise",
    model: Annotated[
        str, typer.Option(help=f"Model, by name, {OWN} that returns it.", autocompletion=complete("model"))
    ] = "linear_vae",
    data: Annotated[
        str, typer.Option(help=f"Data set, by name, {OWN} that returns it.", autocompletion=complete("data set"))
    ] = "linear_gaussian",
    samples: Annotated[int, typer.Option(help="Samples K of the bound.")] = 1,
    alpha: Annotated[float, typer.Option(help="1 is the ELBO, 0 the IWAE bound, between them VR-IWAE.")] = 1.0,
    beta: Annotated[float, typer.Option(help="Weight of the Kullback-Leibler term.")] = 1.0,
    latents: Annotated[int | None, typer.Option(help="Latent dimension; default the model's.")] = None,
    optimizer: Annotated[
        str, typer.Option(help=f"Optimizer of the loop, by name, {OWN}.", autocompletion=complete("optimizer"))
    ] = "sgd",
    rule: Annotated[
        str | None,
        typer.Option(
            help=f"Optimizer whose steps are claimed, by name, {OWN}; default that of --optimizer.",
            autocompletion=complete("optimizer"),
        ),
    ] = None,
    sampler: Annotated[str | None, typer.Option(help=f"Sampler of minibatches, epochwise {OWN}.")] = None,
    trainer: Annotated[str | None, typer.Option(help="Training loop under test, package.module:function.")] = None,
    reported: Annotated[str | None, typer.Option(help=f"What the code reports as the bound, by name, {OWN}.")] = None,
    reference: Annotated[str | None, typer.Option(help=f"Model whose bound is claimed, by name, {OWN}.")] = None,
    law: Annotated[str | None, typer.Option(help="Estimator whose laws in K are claimed, by name.")] = None,
    scale: Annotated[float, typer.Option(help="C of the steps C / sqrt(n).")] = 0.01,
    steps: Annotated[int, typer.Option(help="Steps of the run.")] = 2500,
    batch_size: Annotated[int, typer.Option(help="Batch size B.")] = 8,
    members: Annotated[int, typer.Option(help="Seeds trained at once.")] = 16,
    replicates: Annotated[int, typer.Option(help="Gradients at each point, a multiple of 8.")] = 4000,
    budget: Annotated[
        float | None, typer.Option(help="Relative error of the mean gradient that is to be found; sets --replicates.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Certify a model and an estimator: run every gate that applies, print the verdicts.

    Exits with 1 if a gate fails or has no power, with 2 if the question cannot be asked. Examples:

        vaebench check --estimator leave_one_out --samples 5

        vaebench check --alpha 0 --samples 5 --latents 1 --estimator doubly_reparameterized

        vaebench check --estimator mypackage.estimators:antithetic --law pathwise --optimizer adam

        vaebench check --trainer mypackage.loops:train --optimizer mypackage.rules:adam --rule adam
    """
    with uncollected():
        import vaebench.experiments.limits  # noqa: F401 - loaded here, used by name below
        import vaebench.gates  # noqa: F401 - loaded here, used by name below

        own_process()
    with refusing("check"), aside():
        _require_feasible(steps, batch_size, samples, members, latents, seed)
        verdicts, left_out = _certify(
            {"model": model, "data": data, "estimator": estimator},
            {"reported": reported, "reference": reference, "sampler": sampler, "trainer": trainer},
            {"samples": samples, "alpha": alpha, "beta": beta},
            {} if latents is None else {"latents": latents},
            {
                "optimizer": optimizer, "rule": rule, "steps": steps, "batch_size": batch_size, "members": members,
                "replicates": replicates, "budget": budget, "law": law, "seed": seed,
            },
            scale,
        )  # fmt: skip
        outcome = _overall(verdicts)
    if as_json:
        found: dict[str, Any] = {"outcome": outcome, "passed": outcome == "pass"}
        print_json(
            found | {"verdicts": [verdict.to_dict() for verdict in verdicts], "left_out": list(map(asdict, left_out))}
        )
    else:
        print_verdicts(verdicts)
        typer.echo("\n".join(map(str, left_out)))
    sys.exit(int(outcome != "pass"))


def _overall(verdicts: Sequence[Verdict]) -> str:
    from vaebench.gates import overall

    return overall(verdicts)


def _require_feasible(steps: int, batch_size: int, samples: int, members: int, latents: int | None, seed: int) -> None:
    from vaebench.experiments.experiment import Measures
    from vaebench.experiments.limits import require_array, require_feasible, require_seeds
    from vaebench.support.checks import positive_integer

    require_seeds((seed,))
    sizes = {"steps": steps, "batch_size": batch_size, "samples": samples, "members": members}
    for name, value in sizes.items():
        positive_integer(name, value)
    require_feasible(vars(Measures()) | sizes | {"seeds": members})
    if latents is not None:
        positive_integer("latents", latents)
        require_array({"members": members, "batch_size": batch_size, "samples": samples, "latents": latents})


def _certify(
    names: Mapping[str, str],
    claims: Mapping[str, str | None],
    objective: Mapping[str, Any],
    shape: Mapping[str, Any],
    settings: Mapping[str, Any],
    scale: float,
) -> tuple[list[Verdict], list[Stage]]:
    """The verdicts, and what was left out and why."""
    import torch
    from torch.func import grad

    from vaebench.cli.parts import build_data, build_model
    from vaebench.experiments.limits import require_rows
    from vaebench.gates import run_gates
    from vaebench.gradients.estimators import ESTIMATORS
    from vaebench.gradients.objectives import Objective
    from vaebench.models import MODELS
    from vaebench.training.schedules import inverse_sqrt

    asked, estimator = Objective(**objective), ESTIMATORS[names["estimator"]]
    if settings["law"] is not None:
        ESTIMATORS[settings["law"]]  # a law that nobody has would be left out in silence
    x = build_data(names["data"], settings["seed"], {"dtype": torch.float64})
    require_rows(settings["batch_size"], len(x))

    def build(name: str) -> Any:
        return build_model(name, settings["seed"] + 1, x, {"dtype": torch.float64} | dict(shape))

    model = build(names["model"])
    _require_affordable(model, asked.samples, settings)
    own = _claimed(claims, build) | _own_rules(settings)
    if ESTIMATORS.is_own(names["estimator"]) and MODELS.is_own(names["model"]):
        own.setdefault("trainer", _recording_trainer())
    with uncollected():
        grad(torch.sum)(torch.zeros(()))  # the first gradient of torch.func loads a thousand modules
    return _told(partial(run_gates, model, estimator, asked, x, schedule=inverse_sqrt(scale), **(dict(settings) | own)))


def _told(gates: Callable[..., list[Verdict]]) -> tuple[list[Verdict], list[Stage]]:
    """The verdicts of gates that say on a line of the terminal what begins, and what they left out."""
    left_out: list[Stage] = []
    with status("starting") as say:

        def progress(stage: Stage) -> None:
            say(str(stage))
            left_out.extend([stage] if stage.left_out else [])

        try:
            return gates(progress=progress), left_out
        except ValueError as refusal:
            if "[0, 1]" in str(refusal):
                raise ValueError(f"{str(refusal).rstrip('.')}, or try --data digits.") from None
            raise


def _own_rules(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Optimizers of the user's own, by the names of `run_gates`."""
    from vaebench.support.registry import imported

    named = {part: settings[part] for part in ("optimizer", "rule") if ":" in (settings[part] or "")}
    return {part: imported(part, name) for part, name in named.items()}


def _require_affordable(model: nn.Module, samples: int, settings: Mapping[str, Any]) -> None:
    """Refuse what would run for hours: gradients of the run and at three points, one's own and trusted ones."""
    from vaebench.experiments.limits import require_affordable

    members, replicates = settings["members"], settings["replicates"]
    gradients = 2 * settings["steps"] * members + 9 * replicates
    size = sum(p.numel() for p in model.parameters())
    require_affordable(size, members, gradients, samples, settings["batch_size"])


def _recording_trainer() -> Callable[..., Any]:
    """`train` with recorded gradients, for parts that are known to remember no calls."""
    from vaebench.training.compilation import recorder
    from vaebench.training.fleet import train

    return partial(train, compiler=recorder())


def _claimed(claims: Mapping[str, str | None], build: Callable[[str], Any]) -> dict[str, Any]:
    """What is claimed beside the estimator, by the names of `run_gates`; only what was named."""
    from vaebench.data.sampling import SAMPLERS
    from vaebench.gradients.estimators import ESTIMATORS
    from vaebench.support.registry import imported

    makers: dict[str, Callable[[str], Any]] = {
        "reported": ESTIMATORS.__getitem__,
        "reference": build,
        "sampler": lambda name: SAMPLERS[name],
        "trainer": lambda name: imported("trainer", name),
    }
    return {part: makers[part](name) for part, name in claims.items() if name is not None}
