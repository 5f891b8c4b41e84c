"""The page: from a study's results to HTML and the files beside it."""

import itertools
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vaebench.report.answer import Sentence, Trust, found_in, is_trial, trust
from vaebench.report.figures import png
from vaebench.report.panels import comparisons, of_arm, overview
from vaebench.report.study import Result, Study
from vaebench.report.tables import csv_files, is_seconds, side_by_side
from vaebench.report.wording import lasting, number, symbol

FORMAT = 1
ICONS = {"good": "✓", "bad": "✗", "unknown": "?"}
RECORDED = ("commit", "platform", "device", "threads")


def contents(
    study: Study, results: Sequence[Result], progress: Callable[[str], None] | None = None
) -> dict[str, bytes]:
    """Everything in a report's directory, files by their paths in it; progress is told what is being drawn."""
    first, others, own = overview(results), comparisons(results), {}
    for place, one in enumerate(results, 1):
        if progress is not None:
            progress(f"{study.title}: figures of arm {place} of {len(results)}")
        own[one.name] = of_arm(one)
    found, trusted = found_in(study, results), trust(results)
    html = environment().get_template("page.html.j2")
    text = html.render(
        study=study,
        trial=is_trial(study),
        setting=_setting(results),
        duration=_duration(results),
        is_seconds=is_seconds,
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
        dump=as_json,
    )
    made = {"index.html": text.encode(), "report.json": as_json(_report(study, results, found, trusted)).encode()}
    made["experiments.json"] = as_json(_experiments(study, results)).encode()
    made |= {f"tables/{name}": content for name, content in csv_files(results).items()}
    made["figures/overview.png"] = png(first.figure)
    panels = itertools.chain([first], others, *own.values())
    return made | {f"figures/{panel.name}.svg": panel.svg.encode() for panel in panels}


def index(reports: Sequence[dict[str, Any]], pages: Sequence[Any] = (), broken: Sequence[str] = ()) -> str:
    """The page over several reports.

    Args:
        reports: the `report.json` of each, and "path", where it lies, quoted as in an address.
        pages: in Markdown, each with a "path" and an "opening".
        broken: directories whose report.json is no report's.

    Returns:
        HTML.
    """
    return environment().get_template("index.html.j2").render(reports=reports, pages=pages, broken=broken)


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


def _setting(results: Sequence[Result]) -> str:
    """What all arms have in common, in a line; what differs between them is left out."""
    found = [{str(one.experiment[path]["name"]) for one in results} for path in ("data", "model", "optimizer")]
    found.append({f"{one.experiment['steps']:,} steps" for one in results})
    found.append({f"B = {one.experiment['batch_size']}" for one in results})
    found.append({_step_sizes(one.experiment["schedule"]) for one in results})
    found.append({str(one.experiment["dtype"]) for one in results})
    return ", ".join(values.pop() for values in found if len(values) == 1)


def _step_sizes(schedule: Mapping[str, Any]) -> str:
    counted = "n" if schedule.get("period", 1) == 1 else "epoch"
    roots = {0.5: f" / √{counted}", 0.0: ""}
    end = roots.get(schedule["exponent"], f" / {counted}^{schedule['exponent']:g}")
    return f"step sizes {schedule['scale']:g}{end}"


def _duration(results: Sequence[Result]) -> str:
    """How long training took on what, from the seconds of a step; empty if they were not measured."""
    totals: dict[str, float] = {}
    for one in results:
        cost = one.trajectory.metadata.get("cost", {})
        if "seconds per step" not in cost:
            return ""
        device = str(one.trajectory.metadata.get("device") or "a device that was not recorded")
        totals[device] = totals.get(device, 0.0) + cost["seconds per step"] * one.experiment["steps"]
    return "; ".join(f"{lasting(seconds)} on {device}" for device, seconds in totals.items())


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


def about(study: Study, name: str, found: Sequence[Sentence]) -> dict[str, Any]:
    """What the report.json of every study begins with: a JSON object."""
    words = {"format": FORMAT, "name": name, "scale": study.scale, "question": study.question}
    return words | {"answers": [sentence._asdict() for sentence in found]}


def _report(study: Study, results: Sequence[Result], found: Sequence[Sentence], trusted: Trust) -> dict[str, Any]:
    return about(study, study.name, found) | {
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


def as_json(value: Any) -> str:
    """JSON for people and machines, its last line ended."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
