"""What maintainers know about numbers that moved, from ``benchmarks/triage.toml``.

``[[moved]]`` says which commit moved which benchmarks, and why; ``[[gone]]`` which no longer have a value on purpose.
Benchmarks are patterns for the name, with or without its parameters: ``models.Model.track_ops*``.
"""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from asv.util import UserError

FILE = Path("benchmarks/triage.toml")


@dataclass(frozen=True)
class Entry:
    """A reason.

    Attributes:
        benchmarks: patterns.
        reason: a sentence.
        commit: that moved them; empty for what is gone.
    """

    benchmarks: tuple[str, ...]
    reason: str
    commit: str = ""

    def covers(self, case: str) -> bool:
        """Whether it is about a benchmark, given with its parameters."""
        name = case.partition("(")[0]
        return any(fnmatchcase(case, pattern) or fnmatchcase(name, pattern) for pattern in self.benchmarks)


@dataclass(frozen=True)
class Triage:
    """All entries."""

    moved: tuple[Entry, ...] = ()
    gone: tuple[Entry, ...] = ()

    def why_gone(self, case: str) -> str | None:
        """The reason for which a benchmark has no value any more."""
        return next((entry.reason for entry in self.gone if entry.covers(case)), None)

    def why_moved(self, case: str, commits: Collection[str]) -> tuple[str, ...]:
        """The reasons for which any of these commits, in full, moved a benchmark."""
        return tuple(
            entry.reason
            for entry in self.moved
            if entry.covers(case) and any(commit.startswith(entry.commit) for commit in commits)
        )


def _entry(fields: dict[str, Any], wanted: set[str], path: Path) -> Entry:
    patterns, words = fields.get("benchmarks"), [fields.get(name) for name in wanted - {"benchmarks"}]
    listed = isinstance(patterns, list) and all(isinstance(pattern, str) for pattern in patterns)
    if fields.keys() != wanted or not listed or not all(isinstance(word, str) and len(word) >= 7 for word in words):
        names = " and ".join(sorted(wanted))
        raise UserError(f"{path}: an entry must have {names}, a list of patterns beside words, got {fields}.")
    return Entry(tuple(fields["benchmarks"]), fields["reason"], fields.get("commit", ""))


def read(path: Path = FILE) -> Triage:
    """The entries of a file; none if it is not there."""
    if not path.exists():
        return Triage()
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}.") from None
    if unknown := tables.keys() - {"moved", "gone"}:
        raise UserError(f"{path} has no table {sorted(unknown)[0]!r}: write moved or gone.")
    moved = [_entry(fields, {"commit", "benchmarks", "reason"}, path) for fields in tables.get("moved", [])]
    gone = [_entry(fields, {"benchmarks", "reason"}, path) for fields in tables.get("gone", [])]
    return Triage(tuple(moved), tuple(gone))
