"""What became of exact counters between two commits, and how that is told."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.harness.triage import Triage
from vaebench.support.comments import Section, comment
from vaebench.support.kinds import moved

Values = Mapping[str, float | None]
"""Benchmark with its parameters -> value; None: it failed, nan: not applicable."""


class Row(NamedTuple):
    """A counter: what it is, before and after, and what else there is to say."""

    case: str
    before: str = ""
    after: str = ""
    remark: str = ""

    def __str__(self) -> str:
        """A line."""
        values = f" {self.before} -> {self.after}" if self.before or self.after else ""
        return f"{self.case}:{values}{f' ({self.remark})' if values and self.remark else f' {self.remark}'}".rstrip()


@dataclass
class Comparison:
    """What became of every counter, a row each."""

    failures: list[Row] = field(default_factory=list)
    improvements: list[Row] = field(default_factory=list)
    explained: list[Row] = field(default_factory=list)
    unchanged: list[Row] = field(default_factory=list)
    notes: list[Row] = field(default_factory=list)
    compared: int = 0


def shown(value: float | None) -> str:
    """Every digit of a counter."""
    if value is None:
        return "fails"
    return "n/a" if math.isnan(value) else f"{value:.12g}"


def percent(before: float, after: float) -> str:
    """By how much it moved."""
    if not before:
        return "from zero"
    share = 100 * (after / before - 1)
    return f"{share:+.2f} %" if abs(share) >= 0.005 or not share else f"{share:+.1e} %"


def compare(
    base: Values,
    head: Values,
    listed: Collection[str] = (),
    known: Triage = Triage(),  # noqa: B008 - frozen
    commits: Collection[str] = (),
) -> Comparison:
    """Judge HEAD's counters by BASE's.

    Args:
        base: values at BASE, by the benchmarks of HEAD.
        head: values at HEAD.
        listed: what BASE's own benchmarks count.
        known: what maintainers have said.
        commits: from BASE to HEAD, BASE left out.
    """
    outcome = Comparison()
    for case in sorted({*base, *head, *listed}):
        before, after = base.get(case), head.get(case)
        if before is not None and not math.isnan(before):
            _judge(outcome, case, before, after, known, commits, case in head)
        elif case not in head:
            _lost(outcome, Row(case, remark="is no benchmark of HEAD any more"), known)
        elif after is not None and not math.isnan(after):
            outcome.notes.append(Row(case, shown(before), shown(after), "no value at BASE"))
        else:
            outcome.notes.append(Row(case, shown(before), shown(after), "no value at either"))
    return outcome


def _lost(outcome: Comparison, row: Row, known: Triage) -> None:
    reason = known.why_gone(row.case)
    (outcome.explained if reason else outcome.failures).append(row._replace(remark=reason) if reason else row)


def _judge(
    outcome: Comparison,
    case: str,
    before: float,
    after: float | None,
    known: Triage,
    commits: Collection[str],
    there: bool,
) -> None:
    row = Row(case, shown(before), shown(after))
    if not there:
        _lost(outcome, row._replace(after="gone", remark="is no benchmark of HEAD any more"), known)
    elif after is None:
        outcome.failures.append(row._replace(remark="it works at BASE"))
    elif math.isnan(after):
        _lost(outcome, row._replace(remark="it applies at BASE"), known)
    else:
        outcome.compared += 1
        direction, row = moved("exact", before, after), row._replace(remark=percent(before, after))
        if direction == 1:
            reasons = known.why_moved(case, commits)
            explained = row._replace(remark=f"{row.remark}: {' '.join(reasons)}")
            (outcome.explained if reasons else outcome.failures).append(explained if reasons else row)
        else:
            (outcome.improvements if direction else outcome.unchanged).append(row)


def verdict(outcome: Comparison) -> str:
    """One sentence."""
    if not outcome.compared and not outcome.failures:
        return "Nothing was compared: no counter has a value at both commits."
    return f"{outcome.compared} counters compared, {len(outcome.failures)} failures."


def markdown(outcome: Comparison) -> str:
    """The comment for a pull request."""
    header = ("counter", "BASE", "HEAD", "")
    sections = [
        Section("Regressions", header, outcome.failures),
        Section("Risen or gone on purpose", header, outcome.explained),
        Section("Improvements", header, outcome.improvements),
        Section("Unchanged", header, outcome.unchanged, folded=True),
        Section("Not compared", header, outcome.notes, folded=True),
    ]
    return comment(f"Exact counters: {verdict(outcome)}", sections)


def report(outcome: Comparison) -> int:
    """Print the outcome and return the exit status it calls for."""
    for word, rows in (
        ("note", outcome.notes),
        ("reason", outcome.explained),
        ("better", outcome.improvements),
        ("FAIL", outcome.failures),
    ):
        for row in rows:
            print(f"{word:<7}{row}")
    print(verdict(outcome))
    return int(bool(outcome.failures) or not outcome.compared)
