"""`vaebench compare`: what changed between two measurements."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaebench.cli.common import AsJson, brief, print_json, refusing
from vaebench.support.texts import escaped

if TYPE_CHECKING:
    from vaebench.experiments.comparison import Change

MEANS = "A .json of pytest-benchmark, a trajectory or a directory with one, or a commit."
STYLES = {"crossed": "bold red", "lost": "bold red", "recovered": "green", "improved": "green", "moved": "yellow"}
SECTIONS = {
    "Regressions": ("crossed", "lost"),
    "Improvements": ("recovered", "improved"),
    "Moved": ("moved",),
    "Not judged": ("unjudged", "time", "appeared", "gone", "differs"),
    "Unchanged": ("same",),
}
FOLDED = {"Not judged", "Unchanged"}


def compare(
    before: Annotated[str, typer.Argument(metavar="A", help=MEANS)],
    after: Annotated[str, typer.Argument(metavar="B", help="Another of its kind.")],
    gone: Annotated[
        list[str] | None, typer.Option(help="A claim or counter that was lost on purpose; * stands for any letters.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print what is the same, too.")] = False,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
) -> None:
    """Compare two test reports, two runs or two commits: what crossed its bound, what moved.

    Of reports, claims with their bounds, counters and times; of runs, the last rows, averaged over seeds, and the
    settings that differ; of commits, what asv measured of both, from reports/history. A number moved if it
    differs by more than two standard errors, or by 0.1 % where none is recorded.

    Exits with 1 if something crossed its bound: a claim that stood fails, an exact counter rose, more members
    diverged; or if something was lost: a claim or an exact counter is not there any more, is no number, or its bound
    was loosened to more than twice what it was; with 2 if the two cannot be read. Examples:

        vaebench compare before.json after.json

        vaebench compare results/sgd results/adam --json

        vaebench compare main HEAD --all

        vaebench compare main HEAD --markdown

        vaebench compare before.json after.json --gone 'tests/test_old.py::*'
    """
    with refusing("compare"):
        from vaebench.experiments.comparison import FAILURES, KINDS, on_purpose
        from vaebench.experiments.comparison import compare as rows_of

        found = on_purpose(rows_of(before, after, Path.cwd()), gone or [])
        rows = sorted(found, key=lambda row: KINDS.index(row.kind))
    if as_json:
        print_json([row.plain() for row in rows])
    elif as_markdown:
        typer.echo(_markdown(rows), nl=False)
    else:
        _print_table(rows if everything else [row for row in rows if row.kind != "same"])
        same = any(row.kind == "same" for row in rows)
        typer.echo(f"{_summary(rows)}{' (--all shows what is the same)' if same and not everything else ''}.")
    sys.exit(int(any(row.kind in FAILURES for row in rows)))


def _summary(rows: Sequence[Change]) -> str:
    counts = Counter(row.kind for row in rows)
    return f"{len(rows)} compared: {', '.join(f'{count} {kind}' for kind, count in counts.items())}"


def _markdown(rows: Sequence[Change]) -> str:
    """For a pull request: what got worse first, what is the same folded away."""
    from vaebench.support.comments import Section, comment

    header = ("", "what", "before", "after", "")
    sections = [
        Section(title, header, [(row.kind, *_cells(row)) for row in rows if row.kind in kinds], title in FOLDED)
        for title, kinds in SECTIONS.items()
    ]
    return comment(_summary(rows), sections)


def _print_table(rows: Sequence[Change]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table("", "", "before", "after", "", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[1].overflow = "fold"
    for row in rows:
        table.add_row(Text(row.kind, STYLES.get(row.kind, "")), *(Text(escaped(cell)) for cell in _cells(row)))
    Console().print(table)


def _cells(row: Change) -> tuple[str, ...]:
    return row.name, _text(row.before), _text(row.after), _remark(row)


def _remark(row: Change) -> str:
    known = row.difference is not None and row.error is not None
    z = "" if row.z is None else f", z = {row.z:.1f}"
    change = f"change {row.difference:+.3g} ± {row.error:.2g}{z}" if known else ""
    return "; ".join(filter(None, (change, row.note)))


def _text(value: object) -> str:
    """Counters in full, other floats with four digits."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e12
    return "" if value is None else f"{value:.0f}" if whole else brief(value)
