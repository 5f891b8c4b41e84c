"""Two kinds of pictures as SVG that takes its colours from the page, so that it is readable by day and in the dark.

Sizes are in pixels of a phone: a picture is as wide as its column there, and columns stand side by side elsewhere.
Curves and points differ in shape as well as in colour. Lower is better in every picture.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 34
SMALLEST = 1e-300
"""A top of a linear axis that can be divided."""
MARKERS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0Z",  # circle
    "M-3.3-3.3H3.3V3.3H-3.3Z",  # square
    "M0-4.6L4.2 3.2H-4.2Z",  # triangle
    "M0-4.8L4.8 0 0 4.8-4.8 0Z",  # diamond
    "M-4.4-1.4h3v-3h2.8v3h3v2.8h-3v3h-2.8v-3h-3Z",  # cross
)


class Point(NamedTuple):
    """A place, and what a reader who points at it is told."""

    x: float
    y: float
    title: str
    mark: str = ""


class Curve(NamedTuple):
    """Points with one name, marker and colour."""

    label: str
    points: Sequence[Point]


class Axis(NamedTuple):
    """Numbers to pixels.

    Attributes:
        low: end of the axis.
        high: likewise.
        log: whether it is logarithmic.
        begin: pixel of the low end.
        end: of the high end.
    """

    low: float
    high: float
    log: bool
    begin: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a number; what is not above zero lies at the low end of a logarithmic axis."""
        value = max(value, self.low) if self.log else value
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.begin + (self.end - self.begin) * (value - low) / (high - low or 1)

    def ticks(self) -> list[float]:
        """Round numbers along it."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1,) if len(decades) > 4 else (1, 3)
            every = max(1, len(decades) // 5)
            found = [step * 10.0**decade for decade in list(decades)[::every] for step in steps]
        else:
            step = _round_step((self.high - self.low) / 4)
            found = [
                step * n for n in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
            ]
        return [tick for tick in found if self.low <= tick * (1 + 1e-9) and tick <= self.high * (1 + 1e-9)]


def _round_step(step: float) -> float:
    scale = 10 ** math.floor(math.log10(step))
    return next(scale * digit for digit in (1, 2, 5, 10) if scale * digit >= step * (1 - 1e-9))


def human(value: float) -> str:
    """A number in three digits or so: 0.925, 330, 1.96 G."""
    if value != 0 and not 1e-3 <= abs(value) < 1e15:
        return f"{value:.1e}"
    for scale, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{prefix}"
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _axis(values: Sequence[float], log: bool, begin: float, end: float) -> Axis:
    low, high = min(0.0, *values), max(0.0, *values)
    if log and high > 0:
        return Axis(min(value for value in values if value > 0) / 1.6, high * 1.6, True, begin, end)
    return Axis(low, high * 1.12 if high > SMALLEST else 1.0, False, begin, end)


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(x, y, kind, anchor, words)


def _frame(down: Axis, across: Axis | None, unit: str, below: str) -> list[Markup]:
    parts = []
    for tick in down.ticks():
        y = down.at(tick)
        parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, y, WIDTH - RIGHT))
        parts.append(_text(LEFT - 5, y + 3.5, human(tick), anchor="end"))
    for tick in across.ticks() if across else ():
        x = across.at(tick) if across else 0.0
        parts.append(Markup('<path class="grid" d="M{:.1f} {}V{}"/>').format(x, TOP, HEIGHT - BOTTOM))
        parts.append(_text(x, HEIGHT - BOTTOM + 13, human(tick)))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, below))
    parts.append(
        Markup('<text class="unit" transform="translate(10 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
            (TOP + HEIGHT - BOTTOM) / 2, unit
        )
    )
    return parts


def _marker(number: int, x: float, y: float, title: str) -> Markup:
    return Markup('<path class="c{0}" transform="translate({1:.1f} {2:.1f})" d="{3}"><title>{4}</title></path>').format(
        number % len(MARKERS), x, y, MARKERS[number % len(MARKERS)], title
    )


def _svg(parts: Sequence[Markup], title: str) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)
    return head + Markup("").join(parts) + Markup("</svg>")


def over_commits(curves: Sequence[Curve], commits: Sequence[str], unit: str, log: bool, limit: float | None) -> Markup:
    """Values over commits, one step for each; a limit is a dashed line."""
    values = [point.y for curve in curves for point in curve.points] + ([limit] if limit is not None else [])
    down = _axis(values, log, HEIGHT - BOTTOM, TOP)
    across = Axis(0, max(1, len(commits) - 1), False, LEFT + 8, WIDTH - RIGHT - 8)
    parts = _frame(down, None, unit, "measured commits, oldest first")
    for place in sorted({0, len(commits) - 1}):
        anchor = "start" if place == 0 else "end"
        parts.append(_text(across.at(place), HEIGHT - BOTTOM + 13, commits[place][:8], "commit", anchor))
    if limit is not None:
        y = down.at(limit)
        parts.append(Markup('<path class="limit" d="M{} {:.1f}H{}"/>').format(LEFT, y, WIDTH - RIGHT))
        parts.append(_text(LEFT + 3, y - 4, f"limit {human(limit)}", "limit", "start"))
    for number, curve in enumerate(curves):
        places = [(across.at(point.x), down.at(point.y), point.title) for point in curve.points]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in places)
        parts.append(Markup('<path class="line l{}" d="M{}"/>').format(number % len(MARKERS), Markup(line)))
        parts += [_marker(number, x, y, title) for x, y, title in places]
    return _svg(parts, f"{unit} over commits: {', '.join(curve.label for curve in curves)}")


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other is below in both coordinates, by x."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, point.y)):
        if not found or point.y < found[-1].y:
            found.append(point)
    return found


def trade_off(curves: Sequence[Curve], across_unit: str, unit: str) -> Markup:
    """One number against another, both on logarithmic axes, with the frontier of what nothing beats in both."""
    points = [point for curve in curves for point in curve.points]
    down = _axis([point.y for point in points], True, HEIGHT - BOTTOM, TOP)
    across = _axis([point.x for point in points], True, LEFT, WIDTH - RIGHT)
    parts = _frame(down, across, unit, across_unit)
    best = frontier(points)
    steps = [f"M{across.at(best[0].x):.1f} {TOP}V{down.at(best[0].y):.1f}"]
    steps += [f"H{across.at(point.x):.1f}V{down.at(point.y):.1f}" for point in best[1:]] + [f"H{WIDTH - RIGHT}"]
    parts.append(Markup('<path class="frontier" d="{}"/>').format(Markup("".join(steps))))
    for number, curve in enumerate(curves):
        for point in curve.points:
            x, y = across.at(point.x), down.at(point.y)
            parts.append(_marker(number, x, y, point.title))
            if point.mark:
                parts.append(_text(x + 5, y - 4, point.mark, "mark", "start"))
    return _svg(parts, f"{unit} against {across_unit}: {', '.join(curve.label for curve in curves)}")


def legend(curves: Sequence[Curve]) -> Markup:
    """The markers with their names, of curves that have points."""
    return _legend(curves, [curve.label for curve in curves])


def legend_of_last(curves: Sequence[Curve]) -> Markup:
    """A legend with the last value of each curve, since curves may hide one another."""
    return _legend(curves, [f"{one.label}: {human(one.points[-1].y)}" if one.points else "" for one in curves])


def _legend(curves: Sequence[Curve], labels: Sequence[str]) -> Markup:
    pairs = enumerate(zip(curves, labels, strict=True))
    named = [(number % len(MARKERS), label) for number, (curve, label) in pairs if curve.points]
    one = Markup('<li><svg viewBox="-6 -6 12 12"><path class="c{0}" d="{1}"/></svg>{2}</li>')
    found = [one.format(number, MARKERS[number], label) for number, label in named]
    return Markup('<ul class="legend">') + Markup("").join(found) + Markup("</ul>")
