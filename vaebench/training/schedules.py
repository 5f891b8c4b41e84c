"""Step-size schedules: gamma_n for steps n = 1, 2, ..."""

from dataclasses import dataclass

import numpy as np

from vaebench.support.checks import positive_integer, within


@dataclass(frozen=True)
class Schedule:
    """gamma_n = scale * e^{-exponent}, where e = ceil(n / period) counts periods of so many steps from 1.

    With a period of one step this is scale * n^{-exponent}. With the steps of an epoch as the period, the step size
    stays what it is within an epoch and falls from one epoch to the next.

    Attributes:
        scale: C > 0, the first step size.
        exponent: decay, at least 0.
        period: steps that share one step size, at least 1.

    Raises:
        ValueError: if scale is not positive, exponent is negative, or period is no positive integer.
    """

    scale: float
    exponent: float
    period: int = 1

    def __post_init__(self):
        within("exponent", self.exponent, 0)
        if within("scale", self.scale, 0) == 0:
            raise ValueError("scale must be positive, got 0; a step of size 0 never moves.")
        positive_integer("period", self.period)

    def __call__(self, step: int) -> float:
        """Step size at step n >= 1.

        Returns:
            gamma_n.

        >>> inverse_sqrt(0.1)(4)
        0.05
        >>> [per_epoch(0.1, 10)(step) for step in (1, 10, 11, 31)]  # doctest: +ELLIPSIS
        [0.1, 0.1, 0.0707..., 0.05]
        """
        return self.scale * (1 + (positive_integer("step", step) - 1) // self.period) ** -self.exponent

    def first(self, steps: int) -> np.ndarray:
        """gamma_1 .. gamma_n of n = `steps`, float64 (n,)."""
        return self.scale * (1.0 + np.arange(steps) // self.period) ** -self.exponent

    def to_dict(self) -> dict[str, float]:
        """The schedule as a JSON object; a period of one step is left out, as in records from before there were any."""
        found = {"scale": self.scale, "exponent": self.exponent}
        return found if self.period == 1 else found | {"period": self.period}

    @property
    def is_inverse_sqrt(self) -> bool:
        """Whether gamma_n = C / sqrt(n), the only schedule of which the theorems' rate and envelope are claimed."""
        return self.exponent == 0.5 and self.period == 1


def constant(scale: float) -> Schedule:
    """gamma_n = C."""
    return Schedule(scale, 0.0)


def inverse_sqrt(scale: float) -> Schedule:
    """gamma_n = C / sqrt(n), the schedule of the paper's theorems."""
    return Schedule(scale, 0.5)


def per_epoch(scale: float, steps: int) -> Schedule:
    """gamma_n = C / sqrt(epoch), epochs of so many steps counted from 1: that of the paper's code and experiments."""
    return Schedule(scale, 0.5, steps)


def polynomial(scale: float, exponent: float) -> Schedule:
    """gamma_n = C / n^exponent (Robbins & Monro, 1951, for exponents in (1/2, 1])."""
    return Schedule(scale, exponent)
