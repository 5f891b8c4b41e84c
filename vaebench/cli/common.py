"""What the commands share: how they refuse and how they print."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vaebench.gates import Verdict

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@contextmanager
def refusing(command: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a library refuses into one sentence on stderr and exit status 2.

    Args:
        command: its name, for the sentence.
        kinds: of exceptions that refuse; default all that a question can raise.

    Raises:
        Exit: with 2, if the block refuses.
    """
    refusals: tuple[type[Exception], ...] = kinds or (ValueError, LookupError, ImportError, AttributeError, OSError)
    try:
        yield
    except refusals as refusal:
        typer.echo(f"vaebench {command}: {refusal}", err=True)
        raise typer.Exit(2) from None


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
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "gate", "claim, and how it was measured", "measured", "allowed")
    for verdict in verdicts:
        mark = "[green]pass[/]" if verdict.passed else "[bold red]FAIL[/]"
        how = ", ".join(f"{name} {brief(value)}" for name, value in verdict.evidence.items())
        claim = escape(verdict.claim) + (f"\n[dim]{escape(how)}[/]" if how else "")
        table.add_row(mark, verdict.gate, claim, brief(verdict.statistic), brief(verdict.threshold))
    console = Console()
    console.print(table)
    failed = [verdict.gate for verdict in verdicts if not verdict.passed]
    alarm = sum(verdict.false_alarm for verdict in verdicts)
    console.print(
        f"{len(failed)} of {len(verdicts)} gates failed: {', '.join(failed)}."
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
