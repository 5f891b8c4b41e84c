"""What the commands share: how they refuse and how they print."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaebench.support.texts import escaped, sentence

if TYPE_CHECKING:
    from vaebench.gates import Verdict

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Results = Annotated[Path, typer.Option(envvar="VAEBENCH_RESULTS", help="Where results are kept.")]
REFUSALS = (ValueError, LookupError, ImportError, AttributeError, OSError)


@contextmanager
def refusing(command: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a library refuses into one sentence on stderr and exit status 2.

    Args:
        command: its name, for the sentence.
        kinds: of exceptions that refuse; default all that a question can raise.

    Raises:
        Exit: with 2, if the block refuses.
    """
    refusals: tuple[type[Exception], ...] = kinds or REFUSALS
    try:
        yield
    except refusals as refusal:
        say(command, sentence(refusal))
        raise typer.Exit(2) from None


def say(command: str, text: str) -> None:
    """Say a sentence on stderr, in the name of a command; nothing in it moves a cursor."""
    typer.echo(escaped(f"vaebench {command}: {text}"), err=True)


def shell(*words: object) -> str:
    """A command to be pasted into a shell, its words quoted."""
    return shlex.join(map(str, words))


def cell(text: object) -> str:
    """A text for a cell of a table: nothing in it is markup, or moves a cursor."""
    from rich.markup import escape

    return escape(escaped(str(text)))


def print_json(value: Any) -> None:
    """Print JSON; what is not finite becomes null, since JSON has no word for it."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a JSON object."""
    return {
        "gate": verdict.gate,
        "claim": verdict.claim,
        "statistic": verdict.statistic,
        "threshold": verdict.threshold,
        "passed": verdict.passed,
        "false_alarm": verdict.false_alarm,
        "evidence": dict(verdict.evidence),
    }


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print verdicts as a table, and how many failed."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "gate", "claim, and how it was measured", "measured", "allowed")
    for verdict in verdicts:
        mark = "[green]pass[/]" if verdict.passed else "[bold red]FAIL[/]"
        how = ", ".join(f"{name} {brief(value)}" for name, value in verdict.evidence.items())
        claim = cell(verdict.claim) + (f"\n[dim]{cell(how)}[/]" if how else "")
        table.add_row(mark, cell(verdict.gate), claim, brief(verdict.statistic), brief(verdict.threshold))
    console = Console()
    console.print(table)
    failed = [verdict.gate for verdict in verdicts if not verdict.passed]
    alarm = sum(verdict.false_alarm for verdict in verdicts)
    console.print(
        f"{len(failed)} of {len(verdicts)} gates failed: {cell(', '.join(failed))}."
        if failed
        else f"All {len(verdicts)} gates passed; correct code fails one with probability below {alarm:.1g}."
    )


def brief(value: object) -> str:
    """A value for a table: floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
