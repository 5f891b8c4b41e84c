"""What the commands share: how they refuse and how they print."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaebench.support.texts import escaped, sentence

if TYPE_CHECKING:
    from vaebench.gates import Verdict

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Results = Annotated[Path, typer.Option(envvar="VAEBENCH_RESULTS", help="Where results are kept.")]
TRIM_THRESHOLD, MMAP_MAX, KEPT_BYTES = -1, -4, 2**30  # glibc's names for what its allocator does, and how much it keeps
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


@contextmanager
def aside() -> Iterator[None]:
    """What other people's code prints goes to stderr: stdout is for the answer, which a machine may read."""
    with redirect_stdout(sys.stderr):
        yield


def own_process() -> None:
    """One thread, and an allocator that keeps its memory, for a command that owns its process.

    Gates are made of small operations, and timings are those of one core. Glibc gives large tensors back at every step,
    and asking for them again takes longer than many a quadrature; where the library of C is another, nothing is set.
    """
    import torch

    torch.set_num_threads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)


def complete(kind: str) -> Callable[[str], list[str]]:
    """What a shell offers after TAB where a registered part is named.

    Args:
        kind: "estimator", "model", "data set" or "optimizer".

    Returns:
        The beginning of a name -> the names that begin so.
    """

    def names(incomplete: str) -> list[str]:
        from vaebench.data import DATA
        from vaebench.gradients import ESTIMATORS
        from vaebench.models import MODELS
        from vaebench.training.optimizers import OPTIMIZERS

        known = {one.kind: one for one in (ESTIMATORS, MODELS, DATA, OPTIMIZERS)}
        return [name for name in known[kind] if name.startswith(incomplete)]

    return names


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected within, and what is there at the end is never looked through for any.

    torch's modules make little garbage and stay until the process ends. Looking through them takes a fifth of their
    loading, half a second of what follows, and three quarters of a second when the process ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


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


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print verdicts as a table, one line each, then those that did not pass in full, and the overall outcome."""
    from rich.console import Console
    from rich.table import Table

    marks = {"pass": "[green]pass[/]", "fail": "[bold red]FAIL[/]", "no power": "[bold yellow]NO POWER[/]"}
    table = Table("", "gate", "measured", "allowed", "smallest effect found with probability 0.9", "must find")
    for verdict in verdicts:
        smallest = "" if verdict.smallest is None else f"{brief(verdict.smallest)} {verdict.unit}".strip()
        limit = "" if verdict.limit is None else brief(verdict.limit)
        mark, measured = marks[verdict.outcome], (brief(verdict.statistic), brief(verdict.threshold))
        table.add_row(mark, cell(verdict.gate), *measured, cell(smallest), limit)
    console = Console()
    console.print(table)
    for verdict in verdicts:
        if not verdict.passed:
            console.print(cell(str(verdict)), highlight=False)
    console.print(_summary(verdicts), highlight=False)


def _summary(verdicts: Sequence[Verdict]) -> str:
    failed = [verdict.gate for verdict in verdicts if verdict.outcome == "fail"]
    blind = [verdict.gate for verdict in verdicts if verdict.outcome == "no power"]
    alarm, count = sum(verdict.false_alarm for verdict in verdicts), len(verdicts)
    if failed:
        return f"{len(failed)} of {count} gates failed: {', '.join(failed)}."
    if blind:
        return (
            f"No gate failed, but {len(blind)} of {count} had no power, so this run does not certify: "
            f"{', '.join(blind)}. More members, steps or replicates give power."
        )
    return f"All {count} gates passed; correct code fails one with probability below {alarm:.1g}."


def brief(value: object) -> str:
    """A value for a table: floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
