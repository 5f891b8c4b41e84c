"""`vaebench list`: what there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vaebench.cli.common import AsJson, Results, cell, print_json, refusing
from vaebench.support.texts import sentence


def catalogue(results: Results = Path("results"), as_json: AsJson = False) -> None:
    """List data sets, models, estimators, optimizers, probes and presets, and the results so far.

    A plug-in that cannot be imported and a study that cannot be read are listed as broken, with the reason.

    Example:
        vaebench list --json
    """
    with refusing("list"):
        from vaebench.data import DATA
        from vaebench.experiments.presets import PRESETS
        from vaebench.experiments.probes.catalogue import PROBES
        from vaebench.experiments.studies import find_studies
        from vaebench.gradients.estimators import ESTIMATORS
        from vaebench.models import MODELS
        from vaebench.training.optimizers import OPTIMIZERS

        parts = {"data": DATA, "models": MODELS, "estimators": ESTIMATORS, "optimizers": OPTIMIZERS}
        parts |= {"probes": PROBES, "presets": PRESETS}
        found: dict[str, dict[str, str]] = {
            kind: {name: _described(known, name) for name in known} for kind, known in parts.items()
        }
        there = find_studies(results, None)
        found["results"] = {study.title: _state(study.arms, results) for study in there.studies}
        found["results"] |= {name: f"broken: {why}" for name, why in there.broken.items()}
    if as_json:
        print_json(found)
    else:
        _print(found)


def _described(known: Mapping[str, Any], name: str) -> str:
    try:
        return (known[name].__doc__ or "").strip().split("\n")[0]
    except (ImportError, ValueError, LookupError) as trouble:
        return f"broken: {sentence(trouble)}"


def _state(arms: Iterable[Any], results: Path) -> str:
    from vaebench.experiments import ResultDirectory

    places = [ResultDirectory(results, arm.experiment) for arm in arms]
    bad = [why for place in places if (why := place.trouble())]
    text = f"{sum(place.complete() for place in places)} of {len(places)} experiments complete"
    return f"{text}, {len(bad)} damaged: {bad[0]}" if bad else text


def _print(found: Mapping[str, Mapping[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for kind, entries in found.items():
        table = Table(title=kind, title_justify="left", box=None, show_header=False, title_style="bold")
        for name, text in entries.items():
            table.add_row(cell(name), cell(text))
        console.print(table if entries else f"[dim]{kind}: none[/]")
