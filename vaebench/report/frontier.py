"""The page of the frontier: forecasts of all candidates, and what those that were run reached."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from vaebench.experiments.frontier import Forecast
from vaebench.experiments.studies import Study
from vaebench.report.answer import CLEAR_DIFFERENCE, TRIAL, Sentence, is_trial
from vaebench.report.figures import COLOURS, DASHES, MARKERS, inline, png, styled, svg
from vaebench.report.page import about, as_json, environment
from vaebench.report.tables import csv
from vaebench.report.wording import estimate, number
from vaebench.report.writing import write_report
from vaebench.support.statistics import Estimate


def write_frontier(
    study: Study,
    found: Sequence[Forecast],
    reached: Mapping[str, Estimate],
    commits: Sequence[str],
    directory: str | os.PathLike[str],
) -> Path:
    """Write the frontier's report, in place of an earlier one: index.html, report.json, figures and tables.

    Args:
        study: the runs that check the forecasts.
        found: forecasts of all candidates, the best first.
        reached: T_n of those that were run, by label.
        commits: of the code that ran them.
        directory: is made.

    Returns:
        The path of index.html.
    """
    table, figure = _table(found, reached), _draw(found, reached)
    vector = svg(figure, "frontier")
    words = _words(study, found, reached, commits)
    alt = "Forecast and reached T_n against the cost of one gradient"
    experiments = as_json(study.to_dict())
    page = (
        environment()
        .get_template("frontier.html.j2")
        .render(
            about=words,
            trial=is_trial(study),
            figure=Markup(inline(vector, alt)),
            rows=[(one, reached.get(one.candidate.label)) for one in found],
            estimate=estimate,
            experiments=experiments,
        )
    )
    files = {
        "index.html": page.encode(),
        "report.json": as_json(words).encode(),
        "experiments.json": experiments.encode(),
        "figures/frontier.svg": vector.encode(),
        "figures/frontier.png": png(figure),
        "tables/frontier.csv": csv(table),
    }
    return write_report(directory, files)


def agrees(forecast: Forecast, found: Estimate) -> bool:
    """Whether a forecast is within a quarter, or two standard errors, of what was reached."""
    error = np.hypot(found.error, forecast.error)
    return abs(forecast.value - found.value) <= max(
        0.25 * abs(found.value), CLEAR_DIFFERENCE * float(np.nan_to_num(error))
    )


def _words(
    study: Study, found: Sequence[Forecast], reached: Mapping[str, Estimate], commits: Sequence[str]
) -> dict[str, Any]:
    """What the page says of the study as a whole; report.json has it, too."""
    answered, within, checked = _answers(found, reached)
    return about(study, "frontier", [TRIAL] if is_trial(study) else answered) | {
        "verdict": f"{within} of {checked} forecasts within 25 % or two standard errors of what was reached",
        "state": "good" if within == checked else "bad",
        "checks": checked,
        "failed": checked - within,
        "arms": len(study.arms),
        "runs": sum(len(arm.experiment.seeds) for arm in study.arms),
        "diverged": 0,
        "commits": sorted(set(commits)),
    }


def _answers(found: Sequence[Forecast], reached: Mapping[str, Estimate]) -> tuple[list[Sentence], int, int]:
    ran = [one for one in found if one.candidate.label in reached]
    measured = sorted(ran, key=lambda one: reached[one.candidate.label].value)
    best, first = measured[0], found[0]
    within = sum(agrees(one, reached[one.candidate.label]) for one in ran)
    what = f"{best.candidate.label}: {best.steps:,} steps reach T_n = {estimate(reached[best.candidate.label])}"
    forecast = (
        "It was the forecast's first choice, too."
        if best is first
        else f"The forecast preferred {first.candidate.label}, which reached "
        f"{estimate(reached[first.candidate.label])}."
    )
    ratios = [one.value / reached[one.candidate.label].value for one in ran]
    spread = f"forecast over reached lies between {number(min(ratios))} and {number(max(ratios))} in {len(ran)} runs"
    return (
        [Sentence("The best that was run", f"{what}. {forecast}"), Sentence("The forecast", f"{spread}.")],
        within,
        len(ran),
    )


def _table(found: Sequence[Forecast], reached: Mapping[str, Estimate]) -> pd.DataFrame:
    nothing = Estimate(float("nan"), float("nan"))
    rows = []
    for one in found:
        row = one.candidate._asdict() | one.price._asdict() | {"steps": one.steps}
        got = reached.get(one.candidate.label, nothing)
        row |= {"forecast": one.value, "forecast, standard error": one.error}
        rows.append(row | {"reached": got.value, "reached, standard error": got.error})
    return pd.DataFrame(rows)


def _draw(found: Sequence[Forecast], reached: Mapping[str, Estimate]) -> Figure:
    kinds = sorted({(one.candidate.estimator, one.candidate.samples) for one in found})
    places = {name: place for place, name in enumerate(sorted({name for name, _ in kinds}))}
    with styled():
        figure = Figure(figsize=(6.4, 4.2))
        axes = figure.add_subplot()
        for name, samples in kinds:
            line = sorted(
                (one for one in found if (one.candidate.estimator, one.candidate.samples) == (name, samples)),
                key=lambda one: one.price.gflop,
            )
            axes.plot(
                [one.price.gflop for one in line],
                [one.value for one in line],
                label=f"{name} K={samples}",
                linewidth=1 + np.log2(samples) / 4,
                color=COLOURS[places[name]],
                linestyle=DASHES[places[name]],
                marker=MARKERS[places[name]],
                alpha=0.7,
            )
        for one in found:
            if (got := reached.get(one.candidate.label)) is not None:
                ends = {"yerr": CLEAR_DIFFERENCE * got.error, "capsize": 3, "markersize": 9, "markerfacecolor": "none"}
                axes.errorbar(one.price.gflop, got.value, fmt="o", color="black", **ends)
        axes.errorbar([], [], fmt="o", color="black", markersize=9, markerfacecolor="none", label="reached, ± 2 s.e.")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("GFLOP per gradient")
        axes.set_ylabel("T_n when the budget is spent")
        axes.legend(fontsize=7)
    return figure
