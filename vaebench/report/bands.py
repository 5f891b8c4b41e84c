"""Means over seeds with their uncertainty, and what a summary consists of."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from vaebench.experiments.record import Record
from vaebench.gates.verdict import Verdict
from vaebench.support.statistics import Estimate

LEVEL = 0.95
LARGEST_EXPONENT = 700.0  # of exp in float64
FINAL = {
    "grad_sq": "|grad|^2",
    "bound_train": "negative bound, train",
    "bound_test": "negative bound, test",
    "log_likelihood": "log-likelihood, test",
    "encoder_snr": "encoder SNR",
    "largest_parameter": "largest parameter",
}


class Band(NamedTuple):
    """Mean over seeds with its 95 % Student band.

    Attributes:
        step: steps taken.
        mean: over the seeds that did not diverge.
        low: lower limit.
        high: upper limit.
    """

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Line(NamedTuple):
    """A line that theory draws.

    Attributes:
        step: steps taken.
        value: of the line.
        label: what the line is.
        fitted: the last step that a constant of the line was fitted on; None if nothing was fitted.
    """

    step: np.ndarray
    value: np.ndarray
    label: str
    fitted: int | None = None


@dataclass(frozen=True)
class Summary:
    """What a recorded experiment says.

    Attributes:
        gradient: unbiased |grad f|^2; may be negative.
        running: T_n, the average of E|grad f|^2 over the steps so far.
        envelope: T_n stays below.
        prediction: T_n is near.
        bounds: negative bounds in nats, by data.
        extra: what else was measured, by name.
        final: estimates at the end, with standard errors over seeds.
        cost: numbers by name, with their units.
        verdicts: what was claimed, and whether it held.
    """

    gradient: Band
    running: Band
    envelope: Line | None
    prediction: Line | None
    bounds: dict[str, Band]
    extra: dict[str, Band]
    final: dict[str, Estimate]
    cost: dict[str, float]
    verdicts: tuple[Verdict, ...]


def band_of(step: np.ndarray, values: np.ndarray) -> Band:
    """The band of what seeds measured, (S, m), at m steps."""
    mean, seeds = values.mean(0), len(values)
    width = (
        stats.t.isf((1 - LEVEL) / 2, seeds - 1) * values.std(0, ddof=1) / math.sqrt(seeds) if seeds > 1 else 0 * mean
    )
    return Band(step, mean, mean - width, mean + width)


def on_log_axis(band: Band) -> Band:
    """The band as a logarithmic axis can hold it: mean exp(± width / mean), never below zero.

    By the delta method the standard error of log(mean) is that of the mean over the mean, so the Student interval of
    the logarithm has the width of the band's, relative to the mean. To first order it is the same band.

    Returns:
        The band; NaN where the mean is not above zero, which has no place on the axis.
    """
    mean = np.where(band.mean > 0, band.mean, np.nan)
    relative = np.minimum((band.high - band.mean) / mean, LARGEST_EXPONENT)
    return Band(band.step, mean, mean * np.exp(-relative), mean * np.exp(relative))


def _estimate(values: np.ndarray) -> Estimate:
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(error))


def final_of(record: Record, running: np.ndarray) -> dict[str, Estimate]:
    """Estimates at the last step; T_n from `running`, (S, n)."""
    known = {label: _estimate(record.columns[c][:, -1]) for c, label in FINAL.items() if c in record.columns}
    return {"T_n": _estimate(running[:, -1])} | known
