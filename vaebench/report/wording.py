"""Numbers and names in words."""

import math
from collections.abc import Sequence

from vaebench.support.statistics import Estimate

NAMES = {"|grad|^2": "‖∇f‖²", "|grad f|^2": "‖∇f‖²", "T_n": "Tₙ"}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PLAIN = range(-3, 6)  # powers of ten written out


def symbol(name: str) -> str:
    """A text with the names of quantities as a page writes them.

    Returns:
        The text.

    >>> symbol("T_n stays below")
    'Tₙ stays below'
    """
    for plain, written in NAMES.items():
        name = name.replace(plain, written)
    return name


def number(value: float) -> str:
    """A number with four digits, or all of a whole one.

    Returns:
        The text.

    >>> number(1234567), number(0.0123), number(-0.00001236), number(float("nan"))
    ('1,234,567', '0.0123', '-1.236×10⁻⁵', 'not finite')
    """
    if not math.isfinite(value):
        return "∞" if value == math.inf else "not finite"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    power = _power(value)
    if power in PLAIN:
        return _short(f"{value:,.{max(0, 3 - power)}f}")
    return _short(f"{value / 10.0**power:.3f}") + _times(power)


def estimate(found: Estimate) -> str:
    """A value and its standard error, to two digits of the error; without one if there is none.

    Returns:
        The text.

    >>> estimate(Estimate(12.3456, 0.0789)), estimate(Estimate(0.00032, 0.000031))
    ('12.346 ± 0.079', '(3.20 ± 0.31)×10⁻⁴')
    """
    value, error = found
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value)
    power = max(_power(value), _power(error))
    unit = 0 if power in PLAIN else power
    digits = max(0, 1 - _power(error) + unit)
    value, error = value / 10.0**unit, error / 10.0**unit
    text = f"{value:,.{digits}f} ± {error:,.{digits}f}"
    return f"({text}){_times(unit)}" if unit else text


def several(words: Sequence[str]) -> str:
    """A list in words.

    Returns:
        The text.

    >>> several(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def share(probability: float) -> str:
    """A probability as a share.

    Returns:
        The text.

    >>> share(0.302), share(1e-5)
    ('30 %', 'less than 1 %')
    """
    return f"{100 * probability:.0f} %" if probability >= 0.01 else "less than 1 %"


def lasting(seconds: float) -> str:
    """A duration, in the largest unit of which there is one.

    Returns:
        The text.

    >>> lasting(30), lasting(5400), lasting(1e6)
    ('30 seconds', '1.5 hours', '12 days')
    """
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.2g} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.2g} seconds"


def _short(decimal: str) -> str:
    return decimal.rstrip("0").rstrip(".") if "." in decimal else decimal


def _power(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _times(power: int) -> str:
    return f"×10{str(power).translate(SUPERSCRIPTS)}"
