"""The figures of a certificate, one function each: findings in, a matplotlib Figure out.

They serve notebooks and slides as they are; the page draws them in currentColor, for light and dark.
"""

from collections.abc import Callable

import matplotlib.style
from matplotlib.figure import Figure

from vaebench.experiments.certifying import Findings
from vaebench.experiments.certifying.cost import OWN, CostPoint
from vaebench.experiments.certifying.intervals import Interval
from vaebench.experiments.certifying.noise import frontier
from vaebench.experiments.certifying.right import Judged
from vaebench.report.certificate.drawing import (
    FRAME,
    by_block,
    curves_over_steps,
    legend,
    look,
    over_samples_and_batch,
    own_batch,
    plain_ticks,
    round_numbers,
)
from vaebench.report.figures import COLOURS

WIDTH = 4.4  # inches of every figure: on a phone it fills the screen, on a desk two stand side by side
FLOOR, CEILING = 1e-2, 1e2  # of a gate's statistic over its threshold, as drawn
ROW = 0.22  # inches of a gate
PANEL = 1.4  # inches of a net's costs
OUTCOMES = {"pass": ("o", COLOURS[2]), "no power": ("D", COLOURS[6]), "fail": ("X", COLOURS[1])}


def gates(found: Findings) -> Figure:
    """Is it right? Every gate's statistic over what is allowed: left of the line it passes.

    Args:
        found: the findings.

    Returns:
        A row for each gate, by place; beyond 100 and below 0.01 marks stand at the edge.
    """
    places = list(dict.fromkeys(one.place for one in found.judged))
    rows: list[Judged | str] = []
    for place in places:
        rows += [place, *(one for one in found.judged if one.place == place)]
    with matplotlib.style.context(["default", FRAME]):
        figure = Figure(figsize=(WIDTH, 0.9 + ROW * max(len(rows), 1)))
        axes = figure.add_subplot()
        for row, one in enumerate(rows):
            if isinstance(one, str):
                continue
            verdict = one.verdict
            allowed = verdict.threshold if verdict.threshold > 0 else 1.0
            over = min(max(verdict.statistic / allowed, FLOOR), CEILING)
            marker, colour = OUTCOMES[verdict.outcome]
            axes.plot([over], [row], marker, color=colour, markersize=6, clip_on=False)
        axes.axvline(1.0, color=COLOURS[3], linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(FLOOR, CEILING)
        axes.set_yticks(range(len(rows)), [one if isinstance(one, str) else one.verdict.gate for one in rows])
        for label, one in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if isinstance(one, str) else "normal")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("measured / allowed")
        plain_ticks(axes, "x", (0.01, 0.1, 1, 10, 100))
    return figure


def cost(found: Findings) -> Figure:
    """What does it cost? Time of a gradient over that of what stands beside it, over K and over B, with 95 % intervals.

    Args:
        found: the findings.

    Returns:
        Panels over K on the left, over B on the right; one's own model above the reference nets.
    """

    def ratio(point: CostPoint) -> Interval:
        return point.ratio

    nets = list(dict.fromkeys(point.net for point in found.cost.points)) or [OWN]
    low = min([p.ratio.low for p in found.cost.points], default=1.0)
    high = max([p.ratio.high for p in found.cost.points], default=1.0)
    with matplotlib.style.context(["default", FRAME]):
        figure = Figure(figsize=(WIDTH, 1.2 + PANEL * len(nets)))
        axes = figure.subplots(len(nets), 2, sharex="col", sharey=True, squeeze=False)
        for row, net in zip(axes, nets, strict=True):
            over_samples_and_batch(row, [point for point in found.cost.points if point.net == net], ratio, found)
            row[0].set_ylabel(net)
        for one in axes.flat:
            one.set_yscale("log")
            one.set_ylim(min(0.45, low / 1.1), max(2.2, high * 1.1))
            plain_ticks(one, "y", round_numbers(*one.get_ylim()))
        for one in axes[:-1].flat:
            one.set_xlabel("")
        figure.suptitle(f"time / time of {found.question.beside}", fontsize="medium")
        legend(figure, axes[0])
    return figure


def noise(found: Findings) -> Figure:
    """How noisy? Variance of the encoder's and the decoder's gradient over K and B, with 95 % intervals.

    Args:
        found: the findings.

    Returns:
        Panels over K on the left, over B on the right; the encoder above the decoder, where they are apart.
    """
    return by_block(found, lambda point: point.variance, "variance")


def snr(found: Findings) -> Figure:
    """How noisy? Signal-to-noise ratio of the encoder's and the decoder's gradient over K and B.

    Args:
        found: the findings.

    Returns:
        Panels as those of `noise`; an interval that reaches the bottom contains 0.
    """
    return by_block(found, lambda point: point.snr, "SNR")


def tradeoff(found: Findings) -> Figure:
    """Is the noise worth its time? Variance against time of one gradient, the frontier marked.

    Args:
        found: the findings.

    Returns:
        One mark for each estimator at each K, at one's own B; the line joins those that no other beats in both.
    """
    batch, where = own_batch(found), efforts(found)
    names = list(dict.fromkeys(name for name, _, _ in where))
    with matplotlib.style.context(["default", FRAME]):
        figure = Figure(figsize=(WIDTH, 3.4))
        axes = figure.add_subplot()
        chosen = {key: value for key, value in where.items() if key[2] == batch}
        for name in names:
            mine = sorted((k, effort) for (one, k, _), effort in chosen.items() if one == name)
            if mine:
                x, y = zip(*(effort for _, effort in mine), strict=True)
                axes.plot([1e3 * t for t in x], y, linestyle="none", **look(name, found), label=name)
                for k, (t, v) in mine:
                    axes.annotate(f"K={k}", (1e3 * t, v), textcoords="offset points", xytext=(5, 4), fontsize=7)
        best = [chosen[key] for key in frontier(chosen)]
        if best:
            axes.plot([1e3 * t for t, _ in best], [v for _, v in best], "-", color=COLOURS[3], linewidth=1, zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("milliseconds per gradient")
        axes.set_ylabel("variance of the gradient")
        axes.margins(0.15)
        for axis, limits in (("x", axes.get_xlim()), ("y", axes.get_ylim())):
            plain_ticks(axes, axis, round_numbers(*limits))
        if names:
            axes.legend(loc="best")
    return figure


def theory(found: Findings) -> Figure:
    """Guarantee? T_n of a run on a bed beside what bounds it and what predicts it, or Adam's ledger.

    Args:
        found: the findings.

    Returns:
        One panel over the steps.
    """
    return curves_over_steps(found.guarantee.theory, "Tₙ" if found.question.optimizer == "sgd" else "nats")


def decay(found: Findings) -> Figure:
    """Guarantee? |grad f|^2 on one's own model as it trains, beside a built-in estimator of the same bound.

    Args:
        found: the findings.

    Returns:
        One panel over the steps; bands are 95 % over seeds.
    """
    return curves_over_steps(found.guarantee.curves, "‖∇f‖²")


FIGURES: dict[str, Callable[[Findings], Figure]] = {
    "gates": gates,
    "cost": cost,
    "noise": noise,
    "snr": snr,
    "tradeoff": tradeoff,
    "theory": theory,
    "decay": decay,
}


def drawn(found: Findings) -> list[str]:
    """Names of the figures in which there is something to see, as on a page.

    Args:
        found: the findings.

    Returns:
        In the order of `FIGURES`.
    """
    kept, blocks = found.guarantee, {point.block for point in found.noise.points}
    empty = {
        "gates": not found.judged,
        "cost": not found.cost.points,
        "noise": not blocks,
        "snr": not blocks,
        "tradeoff": not efforts(found),
        "theory": not kept.theory,
        "decay": not kept.curves,
    }
    return [name for name in FIGURES if not empty[name]]


def efforts(found: Findings) -> dict[tuple[str, int, int], tuple[float, float]]:
    """Seconds and variance of one gradient of one's own model, by estimator, K and B, where both are known.

    Args:
        found: the findings.

    Returns:
        By estimator, K and B.
    """
    seconds = {(p.estimator, p.samples, p.batch): p.seconds.value for p in found.cost.points if p.net == OWN}
    variances = {(p.estimator, p.samples, p.batch): p.variance.value for p in found.noise.points if p.block == "whole"}
    return {key: (seconds[key], variances[key]) for key in variances if key in seconds and variances[key] > 0}
