"""Figures: curves over steps with their bands, for a page (SVG) and for slides (PNG)."""

import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from io import BytesIO, StringIO
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from vaebench.report.bands import Band, on_log_axis

# Okabe & Ito (2008), without the yellow, which fades on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
LARGE, SMALL = (4.8, 3.4), (3.9, 3.0)  # inches
FITTED = "#ececec"  # ground under the steps that a line was fitted on
POINTS = 60  # of a curve
INSIDE = 6  # curves whose legend fits into the axes
MINOR = 50.0  # ratio of an axis' ends above which it has ticks at powers of ten only
LETTERS = 34  # in a line of a label
FONT = "DejaVu Sans"  # ships with matplotlib; Verdana has its widths
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vaebench",
    "figure.constrained_layout.use": True,
    "font.family": [FONT],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.framealpha": 0.85,
    "legend.fontsize": 8,
}


class Curve(NamedTuple):
    """What is drawn.

    Attributes:
        label: in the legend.
        band: the curve; a line's has no width.
        place: chooses colour, marker and dashes.
    """

    label: str
    band: Band
    place: int


class AxisScale(NamedTuple):
    """The axes of a figure.

    Attributes:
        label: of the vertical one.
        logarithmic: whether that is.
        start: the first step that is drawn.
        fitted: the last step that a line of theory was fitted on, up to which the ground is grey; None if none was.
    """

    label: str
    logarithmic: bool = True
    start: float = 1.0
    fitted: int | None = None


def styled() -> AbstractContextManager[None]:
    """The style of every figure, while it is drawn and saved."""
    return matplotlib.style.context(["default", STYLE])


def draw(curves: Sequence[Curve], scale: AxisScale, size: tuple[float, float] = SMALL) -> Figure:
    """Draw curves over the logarithm of the step, from step 1 on; the legend lists them by their last value.

    Returns:
        The figure, for `svg` and `png`. On a logarithmic axis values that are not above zero are left out.
    """
    with styled():
        figure = Figure(figsize=size)
        axes = figure.add_subplot()
        shown = [_prepare(curve, scale) for curve in curves]
        drawn = [curve for curve in shown if np.isfinite(curve.band.mean).any()]
        if drawn:
            if scale.fitted is not None:
                axes.axvspan(scale.start, scale.fitted, color=FITTED, linewidth=0)
            _legend(figure, axes, _plot(axes, drawn, scale))
        else:
            axes.text(0.5, 0.5, "no value to draw", ha="center", va="center", transform=axes.transAxes)
        axes.set_xlabel("step n")
        axes.set_ylabel(_literal(scale.label))
    return figure


def below_zero(curves: Sequence[Curve], scale: AxisScale) -> int:
    """How many means are left out of a logarithmic axis because they are not above zero."""
    return sum(int((part.band.mean <= 0).sum()) for part in map(_visible, curves)) if scale.logarithmic else 0


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG file of its own; the bytes depend on nothing but what is drawn.

    Returns:
        SVG, whose ids start with the name, to tell the figures of a page apart.
    """
    file = StringIO()
    with styled():
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _own(file.getvalue(), name)


def png(figure: Figure) -> bytes:
    """A figure for where SVG does not go."""
    file = BytesIO()
    with styled():
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()


def inline(vector: str, alt: str) -> str:
    """An SVG as part of a page: as wide as there is room, and said (`alt`, escaped) to those who do not see it."""
    head, body = vector[vector.index("<svg") :].split(">", 1)
    head = re.sub(r' (?:width|height|version|xmlns:\w+)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{alt}">{body}'.replace("xlink:href", "href")


def _visible(curve: Curve, start: float = 1.0) -> Curve:
    """Thinned, from a step on, without what is not finite."""
    step, *values = (np.asarray(part, dtype=np.float64) for part in curve.band)
    kept = _thin(step, start)
    finite = (np.where(np.isfinite(part[kept]), part[kept], np.nan) for part in values)
    return curve._replace(band=Band(step[kept], *finite))


def _prepare(curve: Curve, scale: AxisScale) -> Curve:
    found = _visible(curve, scale.start)
    return found._replace(band=on_log_axis(found.band)) if scale.logarithmic else found


def _thin(step: np.ndarray, start: float) -> np.ndarray:
    found = np.flatnonzero(step >= start)
    if len(found) <= POINTS:
        return found
    wanted = np.geomspace(step[found[0]], step[found[-1]], POINTS)
    return found[np.unique(np.searchsorted(step[found], wanted).clip(max=len(found) - 1))]


def _plot(axes: Axes, curves: Sequence[Curve], scale: AxisScale) -> list[Line2D]:
    """Draw, and return the lines in the order in which they end, the highest first."""
    axes.set_xscale("log")
    means = np.concatenate([curve.band.mean for curve in curves])
    bottom, top = float(np.nanmin(means)) / 3, float(np.nanmax(means)) * 3
    if scale.logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(bottom, top)
        _majors(axes.yaxis, top / bottom)
    lines = []
    for curve in curves:
        step, mean, low, high = curve.band
        colour, offset = COLOURS[curve.place % len(COLOURS)], curve.place % 5
        if scale.logarithmic:  # what is beyond the axis is beyond it by a factor of ten at most
            low, high = np.maximum(low, bottom / 10), np.minimum(high, top * 10)
        if np.any(high > low):
            axes.fill_between(step, low, high, color=colour, alpha=0.15, linewidth=0)
        lines += axes.plot(
            step,
            mean,
            label=_literal(curve.label),
            color=colour,
            linestyle=DASHES[curve.place % len(DASHES)],
            marker=MARKERS[curve.place % len(MARKERS)],
            markevery=(min(offset, len(step) - 1), 6),
        )
    steps = [step for curve in curves for step in (curve.band.step[0], curve.band.step[-1])]
    _majors(axes.xaxis, max(steps) / min(steps))
    last = [curve.band.mean[np.isfinite(curve.band.mean)][-1] for curve in curves]
    return [lines[i] for i in np.argsort(last)[::-1]]


def _legend(figure: Figure, axes: Axes, lines: list[Line2D]) -> None:
    if len(lines) <= INSIDE:
        axes.legend(handles=lines, loc="best")
    else:
        figure.legend(handles=lines, loc="outside lower center", ncols=3)


def _majors(axis: Axis, span: float) -> None:
    """Several powers of ten need no ticks between them."""
    if span > MINOR:
        axis.set_minor_locator(NullLocator())


def _literal(text: str) -> str:
    """A text in short lines that no typesetting happens to, and that a legend does not hide."""
    return re.sub("^_", " _", textwrap.fill(text, LETTERS)).replace("$", r"\$")


def _own(svg: str, name: str) -> str:
    """Make the ids those of one figure, say nothing twice, and drop what says how it was made."""
    svg = re.sub(r"<!DOCTYPE.*?>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"; font-family: [^;\"]*", "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), svg)
    return re.sub(r"\n\s*", "\n", svg).replace("<svg ", f'<svg font-family="{FONT}, Verdana, sans-serif" ', 1)
