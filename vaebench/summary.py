"""What a recorded experiment says: bands over seeds, theory's lines, estimates at the end, costs, verdicts."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vaebench.gates.verdict import Verdict
from vaebench.moments import Estimate


class Band(NamedTuple):
    """Mean over seeds with its 95 % Student band."""

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Line(NamedTuple):
    """A line that theory draws; the label says what it is, in one phrase."""

    step: np.ndarray
    value: np.ndarray
    label: str


@dataclass(frozen=True)
class Summary:
    """What a recorded experiment says.

    Attributes:
        gradient: unbiased |grad f|^2; may be negative.
        running: T_n, the average of E|grad f|^2 over the steps so far.
        envelope: T_n must stay below.
        prediction: T_n should be near.
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
