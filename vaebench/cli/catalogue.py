"""`vaebench list`: what there is."""

from __future__ import annotations

from pathlib import Path

import typer

from vaebench.cli.common import AsJson, print_json, refusing
from vaebench.cli.run import Results


def catalogue(results: Results = Path("results"), as_json: AsJson = False) -> None:
    """List data sets, models, estimators, optimizers, probes and presets, and the results so far.

    Example:
        vaebench list --json
    """
    with refusing("list"):
        from vaebench.data import DATA
        from vaebench.experiments import ResultDirectory
        from vaebench.experiments.presets import PRESETS
        from vaebench.experiments.probes.catalogue import PROBES
        from vaebench.experiments.studies import find_studies
        from vaebench.gradients.estimators import ESTIMATORS
        from vaebench.models import MODELS
        from vaebench.training.optimizers import OPTIMIZERS

        parts = {"data": DATA, "models": MODELS, "estimators": ESTIMATORS, "optimizers": OPTIMIZERS}
        found: dict[str, object] = {
            kind: {name: _first_line(known[name]) for name in known}
            for kind, known in (parts | {"probes": PROBES, "presets": PRESETS}).items()
        }
        found["results"] = {
            study.title: f"{sum(ResultDirectory(results, arm.experiment).complete() for arm in study.arms)} of "
            f"{len(study.arms)} experiments complete"
            for study in find_studies(results, None)
        }
    if as_json:
        print_json(found)
    else:
        _print(found)


def _first_line(part: object) -> str:
    return (part.__doc__ or "").strip().split("\n")[0]


def _print(found: dict[str, object]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for kind, entries in found.items():
        table = Table(title=kind, title_justify="left", box=None, show_header=False, title_style="bold")
        assert isinstance(entries, dict)
        for name, text in entries.items():
            table.add_row(name, escape(text))
        console.print(table if entries else typer.style(f"{kind}: none", dim=True))
