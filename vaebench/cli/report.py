"""`vaebench report`: pages of what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaebench.cli.common import AsJson, print_json, refusing
from vaebench.cli.run import Results

if TYPE_CHECKING:
    from vaebench.training.trajectory import Trajectory


def report(
    names: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="Default all complete ones.")] = None,
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="Where reports are written, with an index over all.")] = Path("reports"),
    as_json: AsJson = False,
) -> None:
    """Write reports of studies that were run: a page each, with figures and tables, and an index.

    Exits with 2 if a study is not complete. Examples:

        vaebench report

        vaebench report activations --out ~/public_html
    """
    with refusing("report"):
        written, index = _write(names or [], results, out)
    if as_json:
        print_json({"reports": [str(path) for path in written], "index": str(index)})
    else:
        typer.echo("\n".join(map(str, [*written, index])))


def _write(names: list[str], results: Path, out: Path) -> tuple[list[Path], Path]:
    from vaebench.experiments import ResultDirectory
    from vaebench.experiments.studies import find_studies
    from vaebench.report import write, write_index
    from vaebench.report.summarising import summarise

    written = []
    for study in find_studies(results, names or None):
        places = {arm.label: ResultDirectory(results, arm.experiment) for arm in study.arms}
        missing = [label for label, place in places.items() if not place.complete()]
        if missing and names:
            raise ValueError(f"{study.title} lacks {missing[0]}; finish it: vaebench resume {study.title}")
        if missing:
            continue
        known = {arm.hash: one for arm in study.arms if (one := places[arm.label].result()) is not None}
        summaries = {name: summarise(one) for name, one in known.items() if _survived(one)}
        written.append(write(study, known, summaries, out / study.title))
    if not written:
        raise ValueError(f"No complete study in {results}: run one first, such as vaebench run activations.")
    return written, write_index(out)


def _survived(trajectory: Trajectory) -> bool:
    diverged = {one["seed"] for one in trajectory.metadata["diverged"]}
    return len(diverged) < len(set(trajectory.frame["seed"]))
