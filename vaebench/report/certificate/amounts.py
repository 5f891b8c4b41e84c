"""Numbers and their intervals in words."""

import math

from vaebench.experiments.certifying.intervals import Interval
from vaebench.report.wording import number


def interval(found: Interval, digits: int = 3) -> str:
    """A number and its 95 % interval, as "1.02 (0.99 to 1.05)".

    Args:
        found: the interval.
        digits: significant ones.

    Returns:
        The text.

    >>> interval(Interval(1.0234, 0.987, 1.0561)), interval(Interval(1.0, 1.0, 1.0))
    ('1.02 (0.987 to 1.06)', '1')
    """
    value, low, high = (short(part, digits) for part in (found.value, found.low, found.high))
    return value if low == high else f"{value} ({low} to {high})"


def short(value: float, digits: int) -> str:
    """A number of so many significant digits.

    Args:
        value: the number.
        digits: significant ones.

    Returns:
        The text.

    >>> short(0.98765, 3), short(math.inf, 3)
    ('0.988', '∞')
    """
    if not math.isfinite(value):
        return number(value)
    return number(float(f"{value:.{digits}g}"))


def times(ratio: Interval) -> str:
    """How many times, as "1.9 times"; "about 1.9 times (1.2 to 8.1)" where even the direction is not settled.

    Args:
        ratio: with its interval.

    Returns:
        The text.
    """
    value = f"{short(ratio.value, 2)} times"
    return value if ratio.settled() or ratio.low == ratio.high else f"about {interval(ratio, 2)} times"
