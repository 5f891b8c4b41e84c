"""What came out of studies: a row for every arm, the exit status, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaebench.cli.common import cell, print_json, say, shell
from vaebench.support.texts import escaped, sentence

if TYPE_CHECKING:
    from vaebench.experiments import ResultDirectory
    from vaebench.experiments.scheduling.engine import Outcome
    from vaebench.experiments.studies import Study

SHOWN = ("|grad|^2", "T_n", "negative bound, test")


def tell(command: str, studies: Sequence[Study], outcomes: Mapping[str, Outcome], results: Path, as_json: bool) -> int:
    """Print what came out of every arm.

    Args:
        command: "run" or "resume".
        studies: what was asked.
        outcomes: by hash, of the experiments that ended.
        results: where they are.
        as_json: print JSON.

    Returns:
        The exit status.
    """
    from vaebench.experiments import ResultDirectory
    from vaebench.report.summarising import summarise

    rows = []
    for study in studies:
        for arm in study.arms:
            outcome, place = outcomes.get(arm.experiment.hash), ResultDirectory(results, arm.experiment)
            row: dict[str, Any] = {"study": study.title, "arm": arm.label, "hash": arm.experiment.hash}
            if outcome is None or outcome.stopped is not None:
                row |= {"state": "stopped", "step": _step(place)}
            elif outcome.failed is not None:
                row |= {"state": "broke", "why": escaped(outcome.failed)}
            else:
                row |= _complete(summarise, place)
            rows.append(row)
    for text in dict.fromkeys(text for outcome in outcomes.values() for text in outcome.warnings):
        say(command, text)
    if as_json:
        print_json(rows)
    else:
        _print_rows(rows)
    _say_what_next(command, studies, rows, results)
    return int(any(row["state"] != "complete" or row["failed"] for row in rows))


def _step(place: ResultDirectory) -> int:
    try:
        return place.step()
    except (ValueError, OSError):  # what is damaged is no step
        return 0


def _complete(summarise: Callable[[Any], Any], place: ResultDirectory) -> dict[str, Any]:
    try:
        summary = summarise(place.result())
    except (ValueError, LookupError, AttributeError, TypeError, OSError) as nothing:
        return {"state": "broke", "why": sentence(nothing)}
    failed = [verdict.gate for verdict in summary.verdicts if verdict.outcome == "fail"]
    final = {name: list(estimate) for name, estimate in summary.final.items()}
    return {"state": "complete", "checks": len(summary.verdicts), "failed": failed, "final": final}


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("study", "arm", "checks", *SHOWN)
    for row in rows:
        if row["state"] == "complete":
            good = f"[green]{row['checks']} passed[/]"
            checks = f"[bold red]{cell(', '.join(row['failed']))} FAILED[/]" if row["failed"] else good
            cells = [f"{row['final'][n][0]:.5g} ± {row['final'][n][1]:.2g}" if n in row["final"] else "" for n in SHOWN]
        else:
            checks = f"[bold red]broke[/]: {cell(row['why'])}" if "why" in row else f"stopped at step {row['step']:,}"
            cells = [""] * len(SHOWN)
        table.add_row(cell(row["study"]), cell(row["arm"]), checks, *cells)
    Console().print(table)


def _say_what_next(command: str, studies: Sequence[Study], rows: Sequence[dict[str, Any]], results: Path) -> None:
    from vaebench.experiments import ResultDirectory

    where = [] if results == Path("results") else ["--results", results]
    lost = [study.title for study in studies if not (results / f"{study.title}.json").is_file()]
    ready = [
        study.title
        for study in studies
        if study.title not in lost and all(ResultDirectory(results, arm.experiment).complete() for arm in study.arms)
    ]
    if lost:
        say(command, f"{', '.join(lost)}: gone from {results} while it ran; what was there is lost, run it again.")
    elif any(row["state"] == "stopped" for row in rows):
        go_on = shell("vaebench", "resume", *(study.title for study in studies), *where)
        say(command, f"Stopped, and nothing is lost. To go on: {go_on}")
    if ready:
        say(command, f"To look at it: {shell('vaebench', 'report', *ready, *where)}")
