"""`vaebench run` and `vaebench resume`: experiments to their ends, on this machine or on a cluster."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaebench.cli.common import AsJson, print_json, refusing

if TYPE_CHECKING:
    from vaebench.experiments import Experiment, Progress
    from vaebench.experiments.scheduling.engine import Outcome
    from vaebench.experiments.studies import Study

Results = Annotated[Path, typer.Option(envvar="VAEBENCH_RESULTS", help="Where results are kept.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Experiments at a time; default one per core.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a dask scheduler that runs them instead.")]
Data = Annotated[Path | None, typer.Option(help="Where the files of mnist, cifar100 and celeba are.")]


def run(
    what: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset, or a JSON file of a study.")],
    scale: Annotated[str, typer.Option(help="smoke, default (minutes), paper or paper-celeba (a GPU).")] = "default",
    results: Results = Path("results"),
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    data: Data = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default the preset's.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each experiment; default the preset's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study: what is complete is kept, what was interrupted goes on.

    Exits with 1 if an experiment broke, a seed diverged or a check failed; with 2 if the study cannot be run.

    Examples:
        vaebench run activations --scale smoke

        vaebench run samples --jobs 2 && vaebench report samples

        vaebench run mine.json --device cuda --data ~/datasets

        vaebench run beta --scheduler tcp://10.0.0.1:8786
    """
    with refusing("run"):
        study = _study(what, scale, {"device": device, "seeds": None if seeds is None else tuple(range(seeds))})
    _run_studies("run", [study], results, jobs, scheduler, data, as_json)


def resume(
    names: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="Default all unfinished.")] = None,
    results: Results = Path("results"),
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Go on with studies that were interrupted.

    Exits like `run`. Examples:

        vaebench resume

        vaebench resume activations --jobs 1
    """
    with refusing("resume"):
        from vaebench.experiments import ResultDirectory
        from vaebench.experiments.studies import find_studies

        found = find_studies(results, names or None)
        studies = [
            study
            for study in found
            if names or any(not ResultDirectory(results, arm.experiment).complete() for arm in study.arms)
        ]
    if not studies:
        typer.echo(f"Nothing in {results} is unfinished.", err=True)
        return
    _run_studies("resume", studies, results, jobs, scheduler, data, as_json)


def _study(what: str, scale: str, settings: dict[str, Any]) -> Study:
    from vaebench.experiments.presets import preset
    from vaebench.experiments.studies import read_study

    path = Path(what)
    study = read_study(path) if path.suffix == ".json" or path.is_file() else preset(what, scale)
    return study.with_settings(**{name: value for name, value in settings.items() if value is not None})


def _run_studies(
    command: str,
    studies: Sequence[Study],
    results: Path,
    jobs: int | None,
    scheduler: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Run, say what came out, exit."""
    from vaebench.experiments.studies import keep_study
    from vaebench.support.checks import available_device

    arms = {arm.experiment.hash: arm.experiment for study in studies for arm in study.arms}
    found = {} if data is None else {"directory": str(data)}
    try:
        with refusing(command, ValueError, LookupError):
            if scheduler is None:
                for experiment in arms.values():
                    available_device(experiment.device)
            for study in studies:
                keep_study(study, results)
            outcomes = outcomes_of(list(arms.values()), results, jobs or os.cpu_count() or 1, scheduler, found)
    except OSError as error:
        why = error.strerror or error
        typer.echo(f"vaebench {command}: {results} cannot be written ({why}); what was there is there still.", err=True)
        sys.exit(1)
    broken = _tell(command, studies, outcomes, results, as_json)
    sys.exit(broken)


def outcomes_of(
    experiments: list[Experiment], results: Path, jobs: int, scheduler: str | None, found: dict[str, Any]
) -> dict[str, Outcome]:
    """Run experiments behind a bar, stopping when asked to; outcomes by hash, of those that ended."""
    from vaebench.experiments.scheduling.cluster import run_on_cluster
    from vaebench.experiments.scheduling.engine import run_all

    asked: list[int] = []
    total = sum(experiment.steps for experiment in experiments)
    with _stopping(asked), _bar(total, len(experiments)) as progress:

        def stop() -> bool:
            return bool(asked)

        engine = (
            run_all(experiments, results, min(jobs, len(experiments)), progress, stop, found=found)
            if scheduler is None
            else run_on_cluster(experiments, results, scheduler, progress, stop, found=found)
        )
        return {outcome.experiment.hash: outcome for outcome in engine}


@contextmanager
def _stopping(asked: list[int]) -> Iterator[None]:
    """Take Ctrl-C and SIGTERM as a wish to stop."""
    signs = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(sign, lambda number, _: asked.append(number)) for sign in signs]
    try:
        yield
    finally:
        for sign, handler in zip(signs, before, strict=True):
            signal.signal(sign, handler)


@contextmanager
def _bar(total: int, experiments: int) -> Iterator[Callable[[Progress], None]]:
    """A bar over all steps with rate and time left; nothing where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    at: dict[str, int] = {}
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        title = f"{experiments} experiments"
        task = bar.add_task(title, total=total, rate="")

        def progress(one: Progress) -> None:
            at[one.hash] = one.step
            speed = bar.tasks[0].speed
            rate = f"{speed:,.0f} steps/s" if speed else ""
            bar.update(task, completed=sum(at.values()), rate=rate, description=one.note or title)

        yield progress


def _tell(command: str, studies: Sequence[Study], outcomes: dict[str, Outcome], results: Path, as_json: bool) -> int:
    """Print what came out of every arm; the exit status."""
    from vaebench.experiments import ResultDirectory
    from vaebench.report.summarising import summarise

    rows, stopped = [], False
    for study in studies:
        for arm in study.arms:
            outcome, place = outcomes.get(arm.experiment.hash), ResultDirectory(results, arm.experiment)
            row: dict[str, Any] = {"study": study.title, "arm": arm.label, "hash": arm.experiment.hash}
            if outcome is None or outcome.stopped is not None:
                stopped = True
                row |= {"state": "stopped", "step": place.step()}
            elif outcome.failed is not None:
                row |= {"state": "broke", "why": outcome.failed}
            else:
                row |= _complete(summarise, place)
            rows.append(row)
    broken = any(row["state"] != "complete" or row["failed"] for row in rows)
    if as_json:
        print_json(rows)
    else:
        _print_rows(rows)
        _say_what_next(command, studies, rows, results)
    return int(broken or stopped)


def _complete(summarise: Callable[[Any], Any], place: Any) -> dict[str, Any]:
    try:
        summary = summarise(place.result())
    except ValueError as nothing:
        return {"state": "broke", "why": str(nothing)}
    failed = [verdict.gate for verdict in summary.verdicts if not verdict.passed]
    final = {name: list(estimate) for name, estimate in summary.final.items()}
    return {"state": "complete", "checks": len(summary.verdicts), "failed": failed, "final": final}


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = ("|grad|^2", "T_n", "negative bound, test")
    table = Table("study", "arm", "checks", *shown)
    for row in rows:
        if row["state"] == "complete":
            good = f"[green]{row['checks']} passed[/]"
            checks = f"[bold red]{', '.join(row['failed'])} FAILED[/]" if row["failed"] else good
            cells = [f"{row['final'][n][0]:.5g} ± {row['final'][n][1]:.2g}" if n in row["final"] else "" for n in shown]
        else:
            checks = f"[bold red]broke[/]: {escape(row['why'])}" if "why" in row else f"stopped at step {row['step']:,}"
            cells = [""] * len(shown)
        table.add_row(row["study"], escape(row["arm"]), checks, *cells)
    Console().print(table)


def _say_what_next(command: str, studies: Sequence[Study], rows: Sequence[dict[str, Any]], results: Path) -> None:
    where = "" if results == Path("results") else f" --results {results}"
    names = " ".join(study.title for study in studies)
    if any(row["state"] == "stopped" for row in rows):
        typer.echo(f"Stopped, and nothing is lost. To go on: vaebench resume {names}{where}", err=True)
    else:
        typer.echo(f"To look at it: vaebench report {names}{where}", err=True)
