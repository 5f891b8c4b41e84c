"""Figures: curves over steps with their bands, for a page (SVG) and for slides (PNG)."""

import re
import textwrap
from collections.abc import Sequence
from io import BytesIO, StringIO
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vaebench.summary import Band

# Okabe & Ito (2008), without the yellow, which fades on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
LARGE, SMALL = (5.4, 3.7), (3.9, 3.0)  # inches
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


class Scale(NamedTuple):
    """The vertical axis: what it says, whether it is logarithmic, and from which step on it is fitted."""

    label: str
    logarithmic: bool = True
    start: float = 1.0


class Picture(NamedTuple):
    """A drawn figure.

    Attributes:
        svg: standalone.
        png: the same for where SVG does not go.
        hidden: how many points are not above zero and so not on the logarithmic axis.
    """

    svg: str
    png: bytes
    hidden: int


def draw(name: str, curves: Sequence[Curve], scale: Scale, size: tuple[float, float] = SMALL) -> Picture:
    """Draw curves over the logarithm of the step; the bytes depend on nothing else.

    Args:
        name: unique in the page; starts all ids in the SVG.
        curves: at least one; the legend lists them by their last value.
        scale: the vertical axis.
        size: in inches.

    Returns:
        The picture.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=size)
        axes = figure.add_subplot()
        shown = [_prepare(curve, scale) for curve in curves]
        hidden = sum(count for _, count in shown)
        drawn = [curve for curve, _ in shown if np.isfinite(curve.band.mean).any()]
        if drawn:
            _fill(figure, axes, drawn, scale)
        else:
            axes.text(0.5, 0.5, "no value to draw", ha="center", va="center", transform=axes.transAxes)
        axes.set_xlabel("step n")
        axes.set_ylabel(_literal(scale.label))
        vector, raster = StringIO(), BytesIO()
        figure.savefig(vector, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        figure.savefig(raster, format="png", dpi=120, metadata={"Software": None})
    return Picture(own(vector.getvalue(), name), raster.getvalue(), hidden)


def inline(picture: Picture, alt: str) -> str:
    """A picture as part of a page: as wide as there is room, and said to those who do not see it.

    Args:
        picture: what was drawn.
        alt: what it shows, escaped for an attribute.

    Returns:
        The SVG element.
    """
    start = picture.svg.index("<svg")
    head, body = picture.svg[start:].split(">", 1)
    head = re.sub(r' (?:width|height|version|xmlns:\w+)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{alt}">{body}'.replace("xlink:href", "href")


def _prepare(curve: Curve, scale: Scale) -> tuple[Curve, int]:
    """Thinned, from step 1 on, without what cannot be drawn; and how many means are not above zero."""
    step, *values = (np.asarray(part, dtype=np.float64) for part in curve.band)
    kept = _thin(step, scale.start)
    mean, low, high = (np.where(np.isfinite(part[kept]), part[kept], np.nan) for part in values)
    hidden = 0
    if scale.logarithmic:
        hidden = int((mean <= 0).sum())
        mean, high = np.where(mean > 0, mean, np.nan), np.where(high > 0, high, np.nan)
    return curve._replace(band=Band(step[kept], mean, low, high)), hidden


def _thin(step: np.ndarray, start: float) -> np.ndarray:
    found = np.flatnonzero(step >= start)
    if len(found) <= POINTS:
        return found
    wanted = np.geomspace(step[found[0]], step[found[-1]], POINTS)
    return found[np.unique(np.searchsorted(step[found], wanted).clip(max=len(found) - 1))]


def _fill(figure: Figure, axes: Axes, curves: Sequence[Curve], scale: Scale) -> None:
    axes.set_xscale("log")
    means = np.concatenate([curve.band.mean for curve in curves])
    bottom = float(np.nanmin(means)) / 3
    if scale.logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(bottom, float(np.nanmax(means)) * 3)
        _majors(axes.yaxis, float(np.nanmax(means)) / bottom)
    lines = []
    for curve in curves:
        step, mean, low, high = curve.band
        colour, offset = COLOURS[curve.place % len(COLOURS)], curve.place % 5
        low = np.maximum(low, bottom / 10) if scale.logarithmic else low
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
    handles = [lines[i] for i in np.argsort(last)[::-1]]
    if len(curves) <= INSIDE:
        axes.legend(handles=handles, loc="best")
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _majors(axis: Axis, span: float) -> None:
    """Several powers of ten need no ticks between them."""
    if span > MINOR:
        axis.set_minor_locator(NullLocator())


def _literal(text: str) -> str:
    """A text in short lines that no typesetting happens to, and that a legend does not hide."""
    return re.sub("^_", " _", textwrap.fill(text, LETTERS)).replace("$", r"\$")


def own(svg: str, name: str) -> str:
    """Make the ids those of one figure, say nothing twice, and drop what says how it was made."""
    svg = re.sub(r"<!DOCTYPE.*?>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace(f"; font-family: '{FONT}'", "")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), svg)
    return re.sub(r"\n\s*", "\n", svg).replace("<svg ", f'<svg font-family="{FONT}, Verdana, sans-serif" ', 1)
