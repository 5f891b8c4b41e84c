"""One thing measured twice, and what became of it."""

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, TypeVar, get_args

from vaebench.support.kinds import moved

Value = float | int | str | None
Kind = Literal[
    "crossed", "lost", "recovered", "improved", "moved", "unjudged", "appeared", "gone", "time", "differs", "same"
]
FAILURES: frozenset[Kind] = frozenset({"crossed", "lost"})
KINDS: tuple[Kind, ...] = get_args(Kind)

LARGE = 2.0  # standard errors
TOLERANCE = 1e-3  # relative, where no standard error is known
ROUNDING = 1e-9  # relative, where one is


@dataclass(frozen=True)
class Change:
    """One row of a comparison.

    Attributes:
        name: what was measured.
        before: value in the first measurement; None if it is not there.
        after: value in the second.
        error: standard error of the difference; None if unknown.
        kind: "crossed": within its bound before and not after; "lost": a claim or an exact counter that is not there
            after, is no finite number, or has a bound that bounds nothing; "recovered": a claim that failed and
            stands; "improved": an exact counter that fell; "moved": by more than two standard errors, or by 0.1 %
            where none is known; "unjudged": other than before, but of a single seed, where chance cannot be told from
            change; "appeared"; "gone"; "time": took a different time, beyond the spread of either; "differs": a
            circumstance, not a result; "same".
        note: bounds, ratios and whatever else a reader wants beside it.
    """

    name: str
    before: Value
    after: Value
    error: float | None
    kind: Kind
    note: str = ""

    @property
    def difference(self) -> float | None:
        """After minus before, of two numbers."""
        if isinstance(self.before, (int, float)) and isinstance(self.after, (int, float)):
            return self.after - self.before
        return None

    @property
    def z(self) -> float | None:
        """The difference in standard errors, if it has one."""
        return self.difference / self.error if self.difference is not None and self.error else None

    def plain(self) -> dict[str, Any]:
        """The row as a JSON object, its difference and z included."""
        return asdict(self) | {"difference": self.difference, "z": self.z}


class Quantity(Protocol):
    """What can be compared with its like."""

    @property
    def value(self) -> Value:
        """What it comes to."""
        ...

    @property
    def note(self) -> str:
        """What is said beside it where it has no counterpart."""
        ...


Q = TypeVar("Q", bound=Quantity)


def align(before: Mapping[str, Q], after: Mapping[str, Q], judge: Callable[[str, Q, Q], Change]) -> list[Change]:
    """Compare quantities measured twice, by name, and list what is on one side only.

    Returns:
        One row per name, in the order of `before`; what appeared comes last.
    """
    rows = []
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            rows.append(Change(name, before[name].value, None, None, "gone", before[name].note))
        elif name not in before:
            rows.append(Change(name, None, after[name].value, None, "appeared", after[name].note))
        else:
            rows.append(judge(name, before[name], after[name]))
    return rows


def number(name: str, before: float, after: float, error: float | None = None, note: str = "") -> Change:
    """Two values of one number, moved or the same, given the standard error of their difference if it is known."""
    if before == after or (math.isnan(before) and math.isnan(after)):
        return Change(name, before, after, error, "same", note)
    allowed = TOLERANCE * abs(before) if error is None else max(LARGE * error, ROUNDING * abs(before))
    return Change(name, before, after, error, "same" if abs(after - before) <= allowed else "moved", note)


def joint_error(before: float | None, after: float | None) -> float | None:
    """Standard error of the difference of two independent numbers, if both are known."""
    return None if before is None or after is None else math.hypot(before, after)


def counter(name: str, before: float, after: float) -> Change:
    """Two values of an exact counter, lower being better: a rise crosses its bound."""
    direction = moved("exact", before, after)
    if direction == 1:
        return Change(name, before, after, None, "crossed", f"an exact counter rose{ratio(before, after, ' x ')}")
    if direction == -1:
        return Change(name, before, after, None, "improved", f"an exact counter fell{ratio(before, after, ' x ')}")
    return number(name, before, after, note=ratio(before, after) if before != after else "")


def settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The circumstances that differ, anything that JSON holds, one row each; those within objects by dotted names."""
    first, second = dict(_flat("", before)), dict(_flat("", after))
    names = [*first, *(name for name in second if name not in first)]
    rows = [(name, _text(first.get(name)), _text(second.get(name))) for name in names]
    return [Change(name, old, new, None, "differs") for name, old, new in rows if old != new]


def ratio(before: float, after: float, times: str = "x ") -> str:
    """After over before as text; nothing where it means nothing."""
    return f"{times}{after / before:.3g}" if before > 0 and after > 0 else ""


def lost(rows: Iterable[Change], names: Iterable[str]) -> list[Change]:
    """Rows in which what has gone is lost, if it is one of the names of claims and exact counters."""
    watched = frozenset(names)
    return [replace(row, kind="lost") if row.kind == "gone" and row.name in watched else row for row in rows]


def on_purpose(rows: Sequence[Change], patterns: Sequence[str]) -> list[Change]:
    """Rows in which what was lost on purpose, by names with * for any letters, is gone.

    Returns:
        The rows.

    Raises:
        ValueError: if a pattern names nothing that was lost.
    """
    names = [row.name for row in rows if row.kind == "lost"]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"Nothing called {pattern!r} was lost; lost: {', '.join(names) or 'nothing'}.")
    return [
        replace(row, kind="gone")
        if row.kind == "lost" and any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns)
        else row
        for row in rows
    ]


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)
    else:
        yield prefix, value


def _text(value: Any) -> Value:
    return value if value is None or (isinstance(value, (int, float, str)) and value == value) else str(value)
