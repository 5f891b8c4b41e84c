"""The figures of a report, each with what a reader has to know to read it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from vaebench.report.bands import Band, Line, Summary
from vaebench.report.figures import LARGE, SMALL, AxisScale, Curve, below_zero, draw, inline, svg
from vaebench.report.study import Result, file_name
from vaebench.report.wording import number, several, symbol

BAND = (
    "Lines are means over seeds, shading their 95 % Student band, on a logarithmic axis that of the mean's logarithm. "
    "Where seeds vary by up to half of their mean, the band covers the true mean with 0.91 to 0.96; where a "
    "few large ones make the mean (by 1.2 of it), with 0.83 to 0.95."
)
GRADIENT = (
    "Squared norm of the whole gradient of f, the negative bound on the training data, after n steps. "
    "Lower is nearer to a stationary point: it says how far training got, not how good the model is."
)
RUNNING = (
    "Tₙ is the average of E‖∇f‖² over the first n steps, the quantity that convergence theorems for stochastic "
    "gradients bound."
)
BOUND = "Lower is better. The last factor of 100 of the steps."
NEGATIVE = "{} estimates below zero have no place on a logarithmic axis: the estimate is unbiased, the gradient small."
TAIL = 100  # a linear axis shows the steps from the last one over this on
DECADES = 30.0  # from which ratio of largest to smallest on an axis is logarithmic
SQUARED = AxisScale("‖∇f‖²")
MEASURED, PREDICTED, ENVELOPE = 0, 1, 3  # places of an arm's own curves


@dataclass(frozen=True)
class Panel:
    """A figure and its words.

    Attributes:
        name: of its files.
        title: what it shows, in a few words.
        caption: how to read it.
        figure: as it was drawn.
        svg: as a file of its own.
        html: as part of the page.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    svg: str
    html: Markup


def overview(results: Sequence[Result]) -> Panel:
    """The squared gradient of all arms, the large figure of the first screen."""
    curves = _of_arms(results, lambda summary: summary.gradient)
    return _panel("overview", "Squared gradient", f"{GRADIENT} {BAND}", curves, SQUARED, results, LARGE)


def comparisons(results: Sequence[Result]) -> list[Panel]:
    """All arms in one figure for every other quantity; of a single arm only what its own figures leave out."""
    found = []
    if len(results) > 1:
        curves = _of_arms(results, lambda summary: summary.running)
        found.append(_panel("running", "Running average Tₙ", RUNNING, curves, AxisScale("Tₙ"), results))
        for data in _names(results, lambda summary: summary.bounds):
            curves = _of_arms(results, lambda summary, data=data: summary.bounds.get(data))
            title = f"Negative bound, {data}"
            found.append(_panel(f"bound-{file_name(data)}", title, BOUND, curves, _nats(curves), results))
    for name in _names(results, lambda summary: summary.extra):
        curves = _of_arms(results, lambda summary, name=name: summary.extra.get(name))
        found.append(_panel(f"extra-{file_name(name)}", name, "", curves, _fitting(name, curves), results))
    return found


def of_arm(result: Result) -> list[Panel]:
    """One arm's own figures: squared gradient, running average against theory, bounds; none if every seed diverged."""
    summary, name = result.summary, result.name
    if summary is None:
        return []
    gradient = [Curve("‖∇f‖²", summary.gradient, MEASURED)]
    found = [_panel(f"{name}-gradient", "Squared gradient", BAND, gradient, SQUARED, [result])]
    found.append(_against_theory(result, summary))
    if summary.bounds:
        bounds = [Curve(data, band, place) for place, (data, band) in enumerate(summary.bounds.items())]
        found.append(_panel(f"{name}-bounds", "Negative bound", BOUND, bounds, _nats(bounds), [result]))
    return found


def _against_theory(result: Result, summary: Summary) -> Panel:
    curves, words, fitted = [Curve("Tₙ, measured", summary.running, MEASURED)], [RUNNING], None
    if summary.envelope:
        curves.append(Curve("envelope", _line(summary.envelope), ENVELOPE))
        words.append(f"It should stay below the envelope ({summary.envelope.label}).")
        fitted = summary.envelope.fitted
        if fitted is not None:
            words.append("On the grey ground it does so by construction, to the right of it by merit.")
    if summary.prediction:
        curves.append(Curve("prediction", _line(summary.prediction), PREDICTED))
        words.append(f"It should be near the prediction ({summary.prediction.label}).")
    title = "Running average Tₙ and theory" if len(curves) > 1 else "Running average Tₙ"
    return _panel(f"{result.name}-running", title, " ".join(words), curves, AxisScale("Tₙ", fitted=fitted), [result])


def _line(line: Line) -> Band:
    return Band(line.step, line.value, line.value, line.value)


def _panel(
    name: str,
    title: str,
    caption: str,
    curves: Sequence[Curve],
    scale: AxisScale,
    results: Sequence[Result],
    size: tuple[float, float] = SMALL,
) -> Panel:
    figure, hidden = draw(curves, scale, size), below_zero(curves, scale)
    absent = [result.label for result in results if result.summary is None]
    words = [
        caption,
        NEGATIVE.format(hidden) if hidden else "",
        f"Not drawn, because every seed diverged: {several(absent)}." if absent else "",
    ]
    ends = "; ".join(f"{curve.label} {_last(curve.band)}" for curve in curves) or "nothing to draw"
    alt = f"{title}: {scale.label} against step n. Last values: {ends}."
    vector = svg(figure, name)
    html = Markup(inline(vector, str(escape(alt))))  # the drawing has escaped its labels
    return Panel(name, title, " ".join(filter(None, words)), figure, vector, html)


def _last(band: Band) -> str:
    known = band.mean[np.isfinite(band.mean)]
    return number(float(known[-1])) if len(known) else "not finite"


def _of_arms(results: Sequence[Result], choose: Callable[[Summary], Band | None]) -> list[Curve]:
    known = [(result, choose(result.summary)) for result in results if result.summary]
    return [Curve(result.marked, band, result.place) for result, band in known if band is not None]


def _names(results: Sequence[Result], choose: Callable[[Summary], dict[str, Band]]) -> list[str]:
    return list(dict.fromkeys(name for result in results if result.summary for name in choose(result.summary)))


def _nats(curves: Sequence[Curve]) -> AxisScale:
    return AxisScale(
        "negative bound (nats)", False, max(1.0, max(float(curve.band.step[-1]) for curve in curves) / TAIL)
    )


def _fitting(name: str, curves: Sequence[Curve]) -> AxisScale:
    means = np.concatenate([curve.band.mean for curve in curves])
    means = means[np.isfinite(means)]
    wide = len(means) > 0 and means.min() > 0 and means.max() / means.min() > DECADES
    return AxisScale(symbol(name), bool(wide))
