"""The first page of the dashboard: which number matters, how it stands, and what to do if it is red."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from benchmarks.harness.dashboard import charts
from benchmarks.harness.dashboard.changes import EARLIER, LATEST, Change
from benchmarks.harness.dashboard.charts import Curve, Point, human
from benchmarks.harness.dashboard.history import Reading
from benchmarks.harness.dashboard.reports import Written
from benchmarks.harness.dashboard.runs import machines, timings
from benchmarks.harness.dashboard.standing import ENVELOPE, IDENTITY, LIMIT, curves_of, standing

TEMPLATE = "overview.html"
FAMILIES = {
    "IwaeMlp": "IWAE bound, perceptron",
    "ElboMlp": "ELBO, perceptron",
    "IwaeConv32": "IWAE bound, convolutional net",
    "ElboConv32": "ELBO, convolutional net",
}


@dataclass(frozen=True)
class Group:
    """A benchmark that moved between two measured commits, in one or more of its cases."""

    benchmark: str
    unit: str
    changes: Sequence[Change]
    total: int

    @property
    def largest(self) -> Change:
        """The change that is largest in proportion."""
        return max(self.changes, key=lambda change: abs(share(change)))

    @property
    def span(self) -> str:
        """How far its cases moved."""
        low, high = min(map(share, self.changes)), max(map(share, self.changes))
        return percent(low) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"

    @property
    def state(self) -> str:
        """What has become of it."""
        if any(change.worse and change.lasting and not change.reasons for change in self.changes):
            return "not explained"
        if not self.largest.worse:
            return "fell"
        return "explained" if self.largest.lasting else "undone since"


def share(change: Change) -> float:
    """Of the value before, by which a number moved."""
    return (change.after - change.before) / abs(change.before) if change.before else float("inf")


def percent(value: float) -> str:
    """A share with its sign."""
    if math.isinf(value):
        return "from zero"
    if 0 < abs(value) < 5e-4:
        return f"{100 * value:+.1g} %"
    digits = 0 if abs(value) >= 0.095 else 1
    return f"{100 * value:+.{digits}f} %"


@dataclass(frozen=True)
class Step:
    """All that moved between two measured commits, and the reasons that the triage file has."""

    since: int
    until: int
    groups: Sequence[Group]

    @property
    def reasons(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(why for group in self.groups for change in group.changes for why in change.reasons))


def state(reading: Reading) -> str:
    """Why it has no number."""
    if reading.value is None:
        return "fails"
    return "not applicable" if math.isnan(reading.value) else "infinite, or too large"


def ratio(value: float) -> str:
    """A number about 1, in three decimals."""
    return f"{value:.3f}" if abs(value) < 1000 else human(value)


def steps(changes: Iterable[Change], readings: Sequence[Reading], units: Mapping[str, str]) -> list[Step]:
    """Changes by commit and benchmark, the latest first."""
    cases: dict[str, set[str]] = defaultdict(set)
    for reading in readings:
        cases[reading.benchmark].add(reading.case)
    found: dict[tuple[int, int], dict[tuple[str, bool], list[Change]]] = defaultdict(lambda: defaultdict(list))
    for change in changes:
        found[change.until, change.since][change.reading.benchmark, change.worse].append(change)

    def grouped(kept: Mapping[tuple[str, bool], list[Change]]) -> list[Group]:
        return [Group(name, units.get(name, ""), some, len(cases[name])) for (name, _), some in sorted(kept.items())]

    return [Step(since, until, grouped(kept)) for (until, since), kept in sorted(found.items(), reverse=True)]


def latest(readings: Sequence[Reading]) -> dict[str, Reading]:
    """The reading of every case at the last commit that has a number."""
    return {reading.case: reading for reading in readings if reading.there}


def trade_offs(readings: Sequence[Reading]) -> list[tuple[str, Markup, list[Point]]]:
    """For each family of benchmarks its title, picture and frontier: FLOPs of a gradient against noise over signal."""
    now, found = latest(readings), []
    names = sorted({r.params["estimator"].strip("'") for r in now.values() if r.benchmark.endswith("Mlp.track_flops")})
    for family, title in FAMILIES.items():
        curves: dict[str, list[Point]] = {name: [] for name in names}
        for reading in now.values():
            if reading.benchmark != f"estimators.{family}.track_inverse_snr":
                continue
            cost = now.get(reading.case.replace("track_inverse_snr", "track_flops"))
            if cost is None or cost.commit != reading.commit:
                continue
            flops, noise = cost.value or 0.0, reading.value or 0.0
            if flops <= 0 or noise <= 0:
                continue  # no place on logarithmic axes
            name, samples = reading.params["estimator"].strip("'"), reading.params["K"]
            words = f"{name}, K = {samples}: {of_unit(flops, 'FLOPs')}, noise over signal {human(noise)}"
            curves.setdefault(name, []).append(Point(flops, noise, words, samples))
        if any(curves.values()):
            named = [Curve(name, points) for name, points in curves.items()]
            picture = charts.trade_off(named, "FLOPs of one gradient", "noise / signal")
            best = charts.frontier([point for points in curves.values() for point in points])
            found.append((title, picture + charts.legend(named), best))
    return found


def of_unit(value: float, unit: str) -> str:
    """A number and its unit, seconds in what suits them."""
    if unit == "seconds":
        scale, name = next(((s, n) for s, n in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")) if value >= s), (1e-9, "ns"))
        return f"{value / scale:.3g} {name}"
    joined = human(value)
    return f"{joined}B" if unit == "bytes" and joined[-1] in "TGM" else f"{joined} {unit}".strip()


def write(
    html_dir: Path,
    readings: Sequence[Reading],
    moved: Sequence[Change],
    open_changes: Sequence[Change],
    lost: Sequence[Reading],
    described: Mapping[str, Mapping[str, Any]],
    units: Mapping[str, str],
    commits: Mapping[int, str],
    written: Written,
    notes: Sequence[str],
) -> None:
    """Write the page.

    Args:
        html_dir: of the dashboard.
        readings: all of them.
        moved: exact and seeded numbers that moved.
        open_changes: what the page Regressions lists.
        lost: cases that have no value any more.
        described: machines, by name.
        units: of the benchmarks, by name.
        commits: by revision, in full.
        written: what there is to read.
        notes: what a reader must know about the results as a whole.
    """
    ratios, measured = curves_of(readings, ENVELOPE)
    errors, _ = curves_of(readings, IDENTITY)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"human": human, "percent": percent, "of_unit": of_unit, "state": state, "ratio": ratio}
    page = environment.get_template(TEMPLATE).render(
        envelope=standing(readings, ENVELOPE),
        identity=standing(readings, IDENTITY),
        limit=LIMIT,
        at=readings[-1].commit if readings else None,
        ratios=charts.over_commits(ratios, measured, "measured / bound", False, LIMIT) if ratios else "",
        errors=charts.over_commits(errors, measured, "relative error", True, None) if errors else "",
        ratios_legend=charts.legend_of_last(ratios),
        errors_legend=charts.legend_of_last(errors),
        trade_offs=trade_offs(readings),
        moved=steps(moved, readings, units),
        open=open_changes,
        lost=lost,
        share=share,
        commits=commits,
        timings=timings(readings, units),
        latest_runs=LATEST,
        earlier_runs=EARLIER,
        machines=machines(readings, described),
        written=written,
        notes=notes,
        measured=list(dict.fromkeys((reading.revision, reading.commit) for reading in reversed(readings))),
    )
    (html_dir / "index.html").write_text(page, "utf-8")
