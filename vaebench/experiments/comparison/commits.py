"""Two commits, by the results that asv keeps of them: JSON of asv's version 2, one file per commit and environment."""

import math
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product, repeat
from pathlib import Path
from typing import Any

from vaebench.experiments.comparison.change import Change, align, counter, lost, number, ratio
from vaebench.support.files import read_json
from vaebench.support.kinds import kind
from vaebench.support.texts import shown

HISTORY = Path("reports", "history")
VERSION = 2
MOST_CASES = 10**5  # of one benchmark


@dataclass(frozen=True)
class Measured:
    """One benchmark at one set of parameters.

    Attributes:
        value: seconds, or what was tracked; None if it failed, NaN if it does not apply.
        version: of the benchmark; others are not comparable.
        interval: at 99 %, of a time.
    """

    value: float | None
    version: str | None = None
    interval: tuple[float, float] | None = None

    @property
    def note(self) -> str:
        """Why there is no value."""
        return "fails" if self.value is None else "does not apply" if math.isnan(self.value) else ""


Results = Mapping[str, Measured]
"""Benchmark with its parameters -> what was measured."""


def resolve(revision: str, repository: Path) -> str | None:
    """The commit that a revision of a git repository names, in full; None if it names none."""
    command = ["git", "-C", str(repository), "rev-parse", "--verify", "--quiet", "--end-of-options"]
    answer = subprocess.run([*command, f"{revision}^{{commit}}"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def read(path: Path) -> dict[str, Measured]:
    """What was measured, by benchmark and parameters; a file that is damaged or of another format is a ValueError."""
    document = read_json(path)
    try:
        if document["version"] != VERSION:
            found = shown(document["version"])
            raise ValueError(f"{path} has asv's format {found}, and only {VERSION} can be read.")
        columns, rows = document["result_columns"], document["results"].items()
        return dict(pair for name, row in rows for pair in _cases(name, dict(zip(columns, row, strict=False))))
    except (LookupError, TypeError, AttributeError, OverflowError):
        raise ValueError(f"{path} is no file of asv's results.") from None


def compare(before: Results, after: Results) -> list[Change]:
    """Compare two files of results: an exact counter that rose or fails now has crossed its bound, one gone is lost."""
    return lost(align(before, after, _judge), [name for name in before if _kind(name) == "exact"])


def _kind(name: str) -> str:
    """Of a benchmark with its place and parameters."""
    return kind(name.partition("(")[0].rpartition(": ")[2])


def compare_commits(before: str, after: str, repository: Path) -> list[Change]:
    """Compare two revisions of a repository wherever both were measured: on one machine, in one environment.

    Returns:
        The rows; where the commits share several machines or environments, these precede the names.

    Raises:
        ValueError: if a revision is unknown, or was not measured where the other was.
    """
    first, second = (_files(revision, repository) for revision in (before, after))
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ValueError(f"{before} and {after} were not measured on one machine and in one environment.")
    rows = []
    for place in shared:
        prefix = f"{'/'.join(place)}: " if len(shared) > 1 else ""
        sides = ({f"{prefix}{name}": one for name, one in read(side[place]).items()} for side in (first, second))
        rows += compare(*sides)
    return rows


def _files(revision: str, repository: Path) -> dict[tuple[str, str], Path]:
    """Results of one commit by machine and environment."""
    commit = resolve(revision, repository)
    if commit is None:
        raise ValueError(f"{revision!r} is not a commit of this repository.")
    command = ["git", "-C", str(repository), "rev-parse", "--show-toplevel"]
    root = subprocess.run(command, capture_output=True, text=True, check=True).stdout.removesuffix("\n")
    short = commit[:8]
    found = Path(root, HISTORY).glob(f"*/{short}-*.json")
    files = {(path.parent.name, path.stem.removeprefix(f"{short}-")): path for path in found}
    if not files:
        raise ValueError(f"{revision} ({short}) has no results in {HISTORY}: check it out and run make bench.")
    return files


def _cases(name: str, row: Mapping[str, Any]) -> Iterator[tuple[str, Measured]]:
    size = math.prod(map(len, row["params"]))
    columns = [row["result"], *(row.get(f"stats_ci_99_{end}") for end in "ab")]
    if size > MOST_CASES or any(column is not None and len(column) != size for column in columns):
        raise TypeError(name)
    values, lows, highs = (repeat(None) if column is None else map(_float, column) for column in columns)
    for case, value, low, high in zip(product(*row["params"]), values, lows, highs, strict=False):
        interval = None if low is None or high is None else (low, high)
        yield f"{name}({', '.join(case)})" if case else name, Measured(value, row.get("version"), interval)


def _float(value: object) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise TypeError(value)
    return None if value is None else float(value)


def _judge(name: str, before: Measured, after: Measured) -> Change:
    if before.version != after.version:
        return Change(name, before.value, after.value, None, "differs", "the benchmark changed: not comparable")
    what = _kind(name)
    if before.note or after.note:
        return _judge_missing(name, before, after, what == "exact")
    old, new = float(before.value or 0), float(after.value or 0)
    if what == "exact":
        return counter(name, old, new)
    if before.interval and after.interval:
        apart = before.interval[1] < after.interval[0] or after.interval[1] < before.interval[0]
        return Change(name, old, new, None, "time" if apart else "same", ratio(old, new))
    row = number(name, old, new)
    return replace(row, kind="time", note=ratio(old, new)) if what == "timed" and row.kind == "moved" else row


def _judge_missing(name: str, before: Measured, after: Measured, exact: bool) -> Change:
    if before.note and after.note:
        return Change(name, before.value, after.value, None, "same", f"{after.note} in both")
    if before.note:
        return Change(name, before.value, after.value, None, "appeared", f"{before.note} before")
    kind = "crossed" if exact and after.value is None else "gone"
    return Change(name, before.value, after.value, None, kind, after.note)
