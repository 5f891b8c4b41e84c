"""Step-size schedules: gamma_n for steps n = 1, 2, ..."""

from dataclasses import dataclass

from vaebench.support.checks import positive_integer, within


@dataclass(frozen=True)
class Schedule:
    """gamma_n = scale * n^{-exponent}, counted per step from n = 1.

    Attributes:
        scale: C > 0, the first step size.
        exponent: decay, at least 0.

    Raises:
        ValueError: if scale is not positive or exponent is negative.
    """

    scale: float
    exponent: float

    def __post_init__(self):
        within("exponent", self.exponent, 0)
        if within("scale", self.scale, 0) == 0:
            raise ValueError("scale must be positive, got 0; a step of size 0 never moves.")

    def __call__(self, step: int) -> float:
        """Step size at a step.

        Args:
            step: n >= 1.

        Returns:
            gamma_n.

        >>> inverse_sqrt(0.1)(4)
        0.05
        """
        return self.scale * positive_integer("step", step) ** -self.exponent


def constant(scale: float) -> Schedule:
    """gamma_n = C.

    Args:
        scale: C.

    Returns:
        The schedule.
    """
    return Schedule(scale, 0.0)


def inverse_sqrt(scale: float) -> Schedule:
    """gamma_n = C / sqrt(n), the schedule of the paper's theorems.

    Args:
        scale: C.

    Returns:
        The schedule.
    """
    return Schedule(scale, 0.5)


def polynomial(scale: float, exponent: float) -> Schedule:
    """gamma_n = C / n^exponent (Robbins & Monro, 1951, for exponents in (1/2, 1]).

    Args:
        scale: C.
        exponent: decay.

    Returns:
        The schedule.
    """
    return Schedule(scale, exponent)
