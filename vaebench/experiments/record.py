"""What was recorded, seed by seed, at every step.

What was measured at checkpoints is interpolated linearly in log(1 + step), seed by seed. With eight checkpoints per
factor of ten this moves the average of n^{-1/2} by 0.1 %; weighting the checkpoints themselves would move it by far
more.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vaebench.experiments.trajectory import Trajectory
from vaebench.training.schedules import Schedule


class Record(NamedTuple):
    """A trajectory seed by seed, without the members that diverged.

    Attributes:
        marks: checkpoints, (m,).
        columns: at them, (S, m) each.
        schedule: of the step sizes.
    """

    marks: np.ndarray
    columns: Mapping[str, np.ndarray]
    schedule: Schedule

    def everywhere(self, name: str) -> np.ndarray:
        """A column at every step 0 .. n, (S, n + 1); gaps are bridged."""
        at, wanted = np.log1p(self.marks), np.log1p(np.arange(self.marks[-1] + 1))
        rows = []
        for row in self.columns[name]:
            known = np.isfinite(row)
            rows.append(np.interp(wanted, at[known], row[known]) if known.any() else np.full(len(wanted), np.nan))
        return np.stack(rows)

    def steps(self) -> np.ndarray:
        """gamma_1 .. gamma_n."""
        return self.schedule.first(int(self.marks[-1]))

    def running(self) -> np.ndarray:
        """T_1 .. T_n of every seed, (S, n)."""
        squares = self.everywhere("grad_sq")[:, :-1]
        return np.cumsum(squares, 1) / np.arange(1, squares.shape[1] + 1)


def read_record(trajectory: Trajectory) -> Record:
    """A trajectory of `vaebench.experiments.run`, seed by seed.

    Returns:
        The record.

    Raises:
        ValueError: if the squared gradient was not measured, or every member diverged.
    """
    frame, diverged = trajectory.frame, {one["seed"] for one in trajectory.metadata["diverged"]}
    if "grad_sq" not in frame:
        raise ValueError("The experiment did not measure the squared gradient; add the probe 'gradient' and run it.")
    kept = frame.loc[~frame["seed"].isin(list(diverged))]
    if kept.empty:
        raise ValueError(f"Every member diverged, the last at step {frame['step'].max()}: choose smaller steps.")
    table = kept.pivot(index="seed", columns="step")
    names = [name for name in frame.columns if name not in ("seed", "step") and not name.endswith("_error")]
    settings = trajectory.metadata["experiment"]["schedule"]
    marks = np.array(sorted(kept["step"].unique()))
    return Record(marks, {name: table[name].to_numpy() for name in names}, Schedule(**settings))
