"""How the figures of a certificate are drawn: panels over K, B and steps, colours and marks, ticks and legends."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from vaebench.experiments.certifying import Findings
from vaebench.experiments.certifying.intervals import Interval
from vaebench.experiments.certifying.noise import NoisePoint
from vaebench.experiments.certifying.question import Question
from vaebench.experiments.certifying.theory_run import Curve
from vaebench.report.figures import COLOURS, DASHES, MARKERS, STYLE
from vaebench.report.wording import number

FEW, MANY = 2, 6  # powers of ten on an axis: beyond the first alone, beyond the second not each
FRAME = STYLE | {"figure.facecolor": "none", "axes.facecolor": "none", "legend.framealpha": 0.0}


def own_batch(found: Findings) -> int:
    """The B that was asked about, or the whole data where there are fewer rows."""
    return min(found.question.batch_size, len(found.question.data))


def by_block(found: Findings, what: Callable[[NoisePoint], Interval], name: str) -> Figure:
    """A quantity of the encoder's and of the decoder's gradient, or of the whole where they are not apart."""
    with matplotlib.style.context(["default", FRAME]):
        known = {point.block for point in found.noise.points}
        blocks = [block for block in ("encoder", "decoder") if block in known] or ["whole"]
        figure = Figure(figsize=(4.4, 0.6 + 1.7 * len(blocks)))
        axes = figure.subplots(len(blocks), 2, sharex="col", sharey="row", squeeze=False)
        for row, block in zip(axes, blocks, strict=True):
            points = [point for point in found.noise.points if point.block == block]
            over_samples_and_batch(row, points, what, found)
            positive = [what(p).value for p in points if 0 < what(p).value < math.inf]
            if positive:
                row[0].set_yscale("log")
                row[0].set_ylim(min(positive) / 4, max(positive) * 4)
                plain_ticks(row[0], "y", round_numbers(*row[0].get_ylim()))
            row[0].set_ylabel(name if block == "whole" else f"{name}, {block}")
        for one in axes[:-1].flat:
            one.set_xlabel("")
        legend(figure, axes[0])
    return figure


def over_samples_and_batch(axes: Sequence[Axes], points: Sequence, what: Callable, found: Findings) -> None:
    """A quantity with its interval over K at one's own B, and over B at one's own K."""
    samples, batch = found.question.objective.samples, own_batch(found)
    names = list(dict.fromkeys(point.estimator for point in points))
    for one, axis, fixed in ((axes[0], "samples", batch), (axes[1], "batch", samples)):
        other = "batch" if axis == "samples" else "samples"
        ticks = set()
        for place, name in enumerate(names):
            line = sorted(
                (p for p in points if p.estimator == name and getattr(p, other) == fixed),
                key=lambda p, axis=axis: getattr(p, axis),
            )
            if not line:
                continue
            shift = 1.05 ** (place - (len(names) - 1) / 2)  # marks do not hide each other
            x = [getattr(p, axis) * shift for p in line]
            y, low, high = zip(*((i.value, i.low, i.high) for i in map(what, line)), strict=True)
            down = [max(a - b, 0) for a, b in zip(y, low, strict=True)]
            up = [max(b - a, 0) for a, b in zip(y, high, strict=True)]
            one.errorbar(
                x,
                y,
                [down, up],
                label=name,
                linestyle=DASHES[_place(name, found.question) % 4],
                elinewidth=1,
                **look(name, found),
            )
            ticks |= {getattr(p, axis) for p in line}
        one.set_xscale("log")
        if len(ticks) == 1:  # what stands at one place is not drawn to the panel's ends
            one.set_xlim(min(ticks) / 2, max(ticks) * 2)
        plain_ticks(one, "x", sorted(ticks))
        one.set_xlabel(f"K at B = {fixed}" if axis == "samples" else f"B at K = {fixed}")


def _place(name: str, question: Question) -> int:
    """Of an estimator among colours and marks, the same in every figure; one's own is in ink."""
    known = {question.beside: 0, "doubly_reparameterized": 1, "analytic_kl": 2, "leave_one_out": 4}
    return 3 if name == question.name else known.get(name, 5)


def look(name: str, found: Findings) -> dict[str, Any]:
    """Colour and mark of an estimator, the same in every figure."""
    place = _place(name, found.question)
    return {"color": COLOURS[place], "marker": MARKERS[place]}


def curves_over_steps(curves: Sequence[Curve], label: str) -> Figure:
    """Curves over the steps on logarithmic axes, with bands where low and high differ; positive values only."""
    with matplotlib.style.context(["default", FRAME]):
        figure = Figure(figsize=(4.4, 3.4))
        axes = figure.add_subplot()
        shown = [value for curve in curves for value in curve.mean if value > 0]
        for number, curve in enumerate(curves):
            place = (3, 0, 1, 2)[number % 4]
            colour = COLOURS[place]
            line = curve.low == curve.high
            y = [value if value > 0 else math.nan for value in curve.mean]
            width = 1.2 if line else 2
            axes.plot(
                curve.step, y, DASHES[place % 4], color=colour, label=curve.label, linewidth=width, zorder=9 - number
            )
            if not line:
                low = [max(value, min(shown, default=1.0) / 10) for value in curve.low]
                axes.fill_between(curve.step, low, curve.high, color=colour, alpha=0.2, linewidth=0)
        axes.set_xscale("log")
        if shown:
            axes.set_yscale("log")
            axes.set_ylim(min(shown) / 2, max(shown) * 2)
            plain_ticks(axes, "y", round_numbers(*axes.get_ylim()))
            axes.legend(loc="best")
        else:
            axes.text(0.5, 0.5, "nothing to draw", ha="center", va="center", transform=axes.transAxes)
        plain_ticks(axes, "x", round_numbers(*axes.get_xlim()))
        axes.set_xlabel("step n")
        axes.set_ylabel(label)
    return figure


def alone(values: Sequence[float]) -> bool:
    """Whether a line through them shows nothing, since no two that are numbers are neighbours."""
    known = [not math.isnan(value) for value in values]
    return not any(map(all, pairwise(known)))


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, below them."""
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2)


def round_numbers(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis that are easily read: three to eight powers of ten, or 1, 2 and 5 times them.

    Returns:
        The ticks.

    >>> round_numbers(0.5, 30.0), round_numbers(8.0, 3e5)
    ([0.5, 1.0, 2.0, 5.0, 10.0, 20.0], [10.0, 100.0, 1000.0, 10000.0, 100000.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(tens) > FEW:
        return tens[:: -(-len(tens) // MANY)]
    return [times * 10.0**power for power in powers for times in (1, 2, 5) if low <= times * 10.0**power <= high]


def plain_ticks(axes: Axes, axis: str, ticks: Sequence[float]) -> None:
    """Ticks at given numbers, written out."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    low, high = axes.get_xlim() if axis == "x" else axes.get_ylim()
    chosen.set_ticks([tick for tick in ticks if axis == "x" or low <= tick <= high])
    chosen.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    chosen.set_minor_locator(NullLocator())
