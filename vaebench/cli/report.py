"""`vaebench report`: pages of what was recorded."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaebench.cli.common import AsJson, Results, print_json, refusing, say
from vaebench.cli.progress import status
from vaebench.support.texts import sentence

if TYPE_CHECKING:
    from vaebench.experiments.studies import Study
    from vaebench.experiments.trajectory import Trajectory

Out = Annotated[
    Path | None,
    typer.Option(help="Where pages are written, with an index over all; default the directory reports of the results."),
]


def pages(out: Path | None, results: Path) -> Path:
    """Where pages are written: where the user says, or beside the results."""
    return results / "reports" if out is None else out


def report(
    names: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="Default all complete ones.")] = None,
    results: Results = Path("results"),
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Write reports of studies that were run: a page each, with figures and tables, and an index.

    Exits with 1 if a study that was not named cannot be read and is passed over, with 2 if one that was named is not
    complete. Examples:

        vaebench report

        vaebench report activations --out ~/public_html
    """
    with refusing("report"):
        written, index, broken = _write(names or [], results, pages(out, results))
    for name, why in broken.items():
        say("report", f"passed over {name}: {why}")
    if as_json:
        print_json({"reports": [str(path) for path in written], "index": str(index), "broken": broken})
    else:
        typer.echo("\n".join(map(str, [*written, index])))
    sys.exit(int(bool(broken)))


def _write(names: list[str], results: Path, out: Path) -> tuple[list[Path], Path, dict[str, str]]:
    from vaebench.experiments.studies import find_studies
    from vaebench.report import write_index

    written, (studies, broken) = [], find_studies(results, names or None)
    with status("reading") as told:
        start = time.monotonic()

        def progress(text: str) -> None:
            told(f"{len(written)} pages in {time.monotonic() - start:.0f} s; {text}")

        for study in studies:
            progress(study.title)
            try:
                if (page := _page(study, results, out, bool(names), progress)) is not None:
                    written.append(page)
            except (ValueError, LookupError, AttributeError, TypeError, OSError) as trouble:
                if names:
                    raise
                broken[study.title] = sentence(trouble)
    if not written:
        why = "".join(f" {name} is broken: {text}" for name, text in broken.items())
        raise ValueError(f"No complete study in {results}: run one first, such as vaebench run activations.{why}")
    return written, write_index(out), broken


def _page(study: Study, results: Path, out: Path, needed: bool, progress: Callable[[str], None]) -> Path | None:
    """Write a study's page; None if the study is not complete and need not be."""
    from vaebench.experiments import ResultDirectory
    from vaebench.report import write
    from vaebench.report.summarising import summarise

    places = {arm.label: ResultDirectory(results, arm.experiment) for arm in study.arms}
    found = {label: place.result() for label, place in places.items()}
    missing = [label for label, one in found.items() if one is None]
    if missing and needed:
        raise ValueError(f"{study.title} lacks {missing[0]}; finish it: vaebench resume {study.title}")
    if missing:
        return None
    known = {arm.hash: one for arm in study.arms if (one := found[arm.label]) is not None}
    summaries = {name: summarise(one) for name, one in known.items() if _survived(one)}
    return write(study, known, summaries, out / study.title, progress)


def _survived(trajectory: Trajectory) -> bool:
    diverged = {one["seed"] for one in trajectory.metadata["diverged"]}
    return len(diverged) < len(set(trajectory.frame["seed"]))
