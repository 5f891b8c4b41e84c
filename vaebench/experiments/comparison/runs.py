"""Two runs, by the last rows of their trajectories: every column's mean over seeds, and the settings that differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vaebench.experiments.comparison.change import Change, align, joint_error, number, settings
from vaebench.experiments.trajectory import Trajectory, load

FEWEST_SEEDS = 2  # without which nothing is judged
CIRCUMSTANCES = ("data", "device", "versions")


@dataclass(frozen=True)
class Column:
    """One column of the last rows.

    Attributes:
        values: by seed; those not finite left out.
        error: standard error that a single row records of itself.
        missing: how many values are not finite.
    """

    values: Mapping[int, float]
    error: float | None
    missing: int

    @property
    def value(self) -> float:
        """Mean over seeds, NaN without any."""
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @property
    def standard_error(self) -> float | None:
        """Of the mean over seeds; of one seed, what it recorded."""
        return _standard_error(list(self.values.values())) if len(self.values) > 1 else self.error

    @property
    def note(self) -> str:
        """The mean's standard error, and over how many seeds."""
        error = "" if self.standard_error is None else f"± {self.standard_error:.2g} "
        return f"{error}over {_seeds(len(self.values))}" + (f", {self.missing} not finite" if self.missing else "")


def read(path: Path) -> Trajectory:
    """Read a trajectory that has seeds and steps; a file that is damaged or something else is a ValueError."""
    try:
        found = load(path)
    except LookupError:
        raise ValueError(f"{path} is not a trajectory, or is damaged.") from None
    if not {"step", "seed"} <= set(found.frame) or not len(found.frame):
        raise ValueError(f"{path} has no rows by step and seed to compare.")
    return found


def compare(before: Trajectory, after: Trajectory) -> list[Change]:
    """Compare the last rows of two runs.

    With equal seeds the standard error is that of the mean difference within seeds, which share their noise; else the
    runs count as independent. A single seed has no spread over seeds: whether it moved is not judged.

    Returns:
        The rows: settings, the last step, diverged members and every column of numbers. If more members diverge,
        their number has crossed its bound.
    """
    asked = [{"last step": max(run.frame["step"].tolist())} | _asked(run) for run in (before, after)]
    return [*settings(*asked), _divergence(before, after), *align(_columns(before), _columns(after), _judge)]


def _asked(run: Trajectory) -> dict[str, Any]:
    return dict(run.metadata.get("experiment") or {}) | {name: run.metadata.get(name) for name in CIRCUMSTANCES}


def _divergence(before: Trajectory, after: Trajectory) -> Change:
    old, new = (run.metadata.get("diverged") or [] for run in (before, after))
    kind = "crossed" if len(new) > len(old) else "recovered" if len(new) < len(old) else "same"
    seeds = ", ".join(str(found["seed"]) for found in new)
    return Change("diverged members", len(old), len(new), None, kind, f"seeds {seeds}" if seeds else "")


def _columns(run: Trajectory) -> dict[str, Column]:
    """Columns of numbers, without steps and seeds and without standard errors of others."""
    last = run.frame[run.frame["step"] == run.frame["step"].max()]
    cells: dict[str, list] = {str(name): last[name].tolist() for name in last if last[name].dtype.kind in "if"}
    seeds, found = last["seed"].tolist(), {}
    for name, values in cells.items():
        if name in ("step", "seed") or name.removesuffix("_error") in cells.keys() - {name}:
            continue
        finite = {seed: value for seed, value in zip(seeds, values, strict=True) if math.isfinite(value)}
        recorded = cells.get(f"{name}_error")
        error = recorded[0] if recorded and len(seeds) == 1 else None
        found[name] = Column(finite, error, len(seeds) - len(finite))
    return found


def _judge(name: str, before: Column, after: Column) -> Change:
    if len(before.values) > 1 and before.values.keys() == after.values.keys():
        error = _standard_error([after.values[seed] - value for seed, value in before.values.items()])
    else:
        error = joint_error(before.standard_error, after.standard_error)
    note = after.note if before.note == after.note else f"{after.note}; before {before.note}"
    row = number(name, before.value, after.value, error, note)
    if math.isfinite(before.value) and not math.isfinite(after.value):
        return replace(row, kind="lost", note=f"{note}, no number any more")
    if row.kind == "moved" and min(len(before.values), len(after.values)) < FEWEST_SEEDS:
        return replace(row, kind="unjudged", note=f"{note}: one seed cannot tell a change from chance")
    return row


def _standard_error(samples: Sequence[float]) -> float:
    return float(np.std(samples, ddof=1) / math.sqrt(len(samples)))


def _seeds(count: int) -> str:
    return f"{count} seed" + ("s" if count != 1 else "")
