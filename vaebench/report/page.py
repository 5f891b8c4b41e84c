"""The page: from a study's results to HTML and the files beside it."""

import itertools
import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vaebench.report.answer import Sentence, Trust, answers, trust
from vaebench.report.figures import png
from vaebench.report.panels import comparisons, of_arm, overview
from vaebench.report.study import Result, Study
from vaebench.report.tables import csv_files, side_by_side
from vaebench.report.wording import number, symbol

FORMAT = 1
ICONS = {"good": "✓", "bad": "✗", "unknown": "?"}
RECORDED = ("commit", "platform", "device", "threads")


def contents(
    study: Study, results: Sequence[Result], progress: Callable[[str], None] | None = None
) -> dict[str, bytes]:
    """Everything in a report's directory.

    Args:
        study: what was asked.
        results: of its arms.
        progress: told what is being drawn.

    Returns:
        Files by their paths in the directory.
    """
    first, others, own = overview(results), comparisons(results), {}
    for place, one in enumerate(results, 1):
        if progress is not None:
            progress(f"{study.title}: figures of arm {place} of {len(results)}")
        own[one.name] = of_arm(one)
    found, trusted = answers(results), trust(results)
    html = environment().get_template("page.html.j2")
    text = html.render(
        study=study,
        results=results,
        answers=found,
        trust=trusted,
        overview=first,
        comparisons=others,
        own=own,
        table=side_by_side(results),
        provenance=_provenance(results),
        command=shlex.join(["vaebench", "run", study.name, "--scale", study.scale]),
        seeds=_range([len(one.seeds) for one in results]),
        dump=_json,
    )
    made = {"index.html": text.encode(), "report.json": _json(_report(study, results, found, trusted)).encode()}
    made["experiments.json"] = _json(_experiments(study, results)).encode()
    made |= {f"tables/{name}": content for name, content in csv_files(results).items()}
    made["figures/overview.png"] = png(first.figure)
    panels = itertools.chain([first], others, *own.values())
    return made | {f"figures/{panel.name}.svg": panel.svg.encode() for panel in panels}


def index(reports: Sequence[dict[str, Any]], broken: Sequence[str] = ()) -> str:
    """The page over several reports.

    Args:
        reports: the `report.json` of each, and "path", where it lies, quoted as in an address.
        broken: directories whose report.json is no report's.

    Returns:
        HTML.
    """
    return environment().get_template("index.html.j2").render(reports=reports, broken=broken)


def environment() -> Environment:
    """The templates and what they may call."""
    made = Environment(
        loader=PackageLoader("vaebench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"icons": ICONS}
    made.filters |= {"number": _value, "symbol": symbol}
    return made


def _value(value: Any) -> str:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number(value) if plain else str(value)


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _provenance(results: Sequence[Result]) -> dict[str, list[str]]:
    """What ran the arms; several values where they differ."""
    found: dict[str, dict[str, None]] = {}
    for one in results:
        metadata = one.trajectory.metadata
        rows = {name: metadata.get(name) or "not recorded" for name in RECORDED} | metadata.get("versions", {})
        rows["seeds"] = ", ".join(map(str, one.seeds))
        for name, value in rows.items():
            found.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in found.items()}


def _report(study: Study, results: Sequence[Result], found: Sequence[Sentence], trusted: Trust) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": study.name,
        "scale": study.scale,
        "question": study.question,
        "answers": [sentence._asdict() for sentence in found],
        "verdict": trusted.headline,
        "state": trusted.state,
        "checks": trusted.checks,
        "failed": trusted.failed,
        "arms": len(results),
        "runs": sum(len(one.seeds) for one in results),
        "diverged": sum(len(one.seeds) - one.kept for one in results),
        "commits": sorted({str(one.trajectory.metadata.get("commit") or "unknown") for one in results}),
    }


def _experiments(study: Study, results: Sequence[Result]) -> dict[str, Any]:
    arms = [{"label": one.label, "hash": one.hash, "experiment": one.experiment} for one in results]
    return {"name": study.name, "scale": study.scale, "question": study.question, "axis": study.axis, "arms": arms}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
