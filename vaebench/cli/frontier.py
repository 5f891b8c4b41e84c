"""`vaebench frontier`: how to spend a compute budget."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vaebench.cli.common import AsJson, Results, own_process, print_json, refusing, say
from vaebench.cli.progress import status
from vaebench.cli.report import Out, pages
from vaebench.cli.run import Jobs, outcomes_of


def frontier(
    budget: Annotated[float | None, typer.Option(help="GFLOP of one run; default the scale's.")] = None,
    scale: Annotated[str, typer.Option(help="smoke (seconds), default (minutes), paper (a GPU).")] = "default",
    results: Results = Path("results"),
    jobs: Jobs = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Forecast which estimator, B and K a compute budget is best spent on, run the best few, and compare.

    Runs that are complete are read, those that were interrupted go on. Exits with 1 if a run broke. Examples:

        vaebench frontier --scale smoke

        vaebench frontier --budget 20 --jobs 2
    """
    with refusing("frontier"):
        found, reached, page = _explore(budget, scale, results, jobs, pages(out, results))
    if as_json:
        rows = [one._asdict() | {"reached": reached.get(one.candidate.label)} for one in found]
        print_json({"report": str(page), "forecasts": rows})
        return
    for one in found[:5]:
        got = reached.get(one.candidate.label)
        ran = "" if got is None else f", reached {got.value:.4g} ± {got.error:.2g}"
        typer.echo(f"{one.candidate.label}: {one.steps:,} steps, forecast {one.value:.4g}{ran}")
    typer.echo(str(page))


def _explore(budget: float | None, scale: str, results: Path, jobs: int | None, out: Path) -> tuple[Any, Any, Path]:
    from vaebench.experiments import ResultDirectory, frontier
    from vaebench.experiments.studies import keep_study
    from vaebench.report import write_index
    from vaebench.report.frontier import write_frontier
    from vaebench.report.summarising import summarise

    frontier.base(scale)  # refuses an unknown scale
    budget = frontier.BUDGETS[scale] if budget is None else budget
    if not (math.isfinite(budget) and budget > 0):
        raise ValueError(f"--budget must be a finite number of GFLOP above zero, got {budget:g}.")
    own_process()
    with status("counting and timing") as told:
        known = frontier.prices(scale, lambda label: told(f"counting and timing {label}"))
    few = f"{budget:g} GFLOP buy fewer than {frontier.SHORTEST_FORECAST} steps of any candidate; raise --budget."
    if budget / min(price.gflop for price in known.values()) < frontier.SHORTEST_FORECAST:
        raise ValueError(few)
    pilot = frontier.pilot(scale, budget, known)
    _run([pilot], results, jobs)
    trajectory = ResultDirectory(results, pilot).result()
    found = frontier.forecasts(trajectory, budget, known) if trajectory else []
    if not found:
        raise ValueError(few)
    study = frontier.checks(found, scale, budget)
    keep_study(study, results)
    _run([arm.experiment for arm in study.arms], results, jobs)
    done = {arm.label: ResultDirectory(results, arm.experiment).result() for arm in study.arms}
    reached = {label: summarise(one).final["T_n"] for label, one in done.items() if one is not None}
    commits = [str(one.metadata["commit"]) for one in done.values() if one is not None]
    page = write_frontier(study, found, reached, commits, out / study.title.replace("frontier-runs", "frontier"))
    write_index(out)
    return found, reached, page


def _run(experiments: list[Any], results: Path, jobs: int | None) -> None:
    """Run them; what broke or was stopped ends the command."""
    for outcome in list(outcomes_of(experiments, results, jobs, None, {})):
        if not outcome.complete:
            why = outcome.failed or "stopped; the same command goes on"
            say("frontier", f"{outcome.experiment.hash}: {why}")
            sys.exit(1)
