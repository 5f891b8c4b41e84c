"""How far a command is: on a terminal in place, elsewhere in lines that come seldom."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from vaebench.support.texts import escaped

if TYPE_CHECKING:
    from vaebench.experiments import Progress

SELDOM = 10.0  # seconds between lines where nobody looks
SIGNS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")


@contextmanager
def stopping(asked: list[int]) -> Iterator[None]:
    """Take Ctrl-C, SIGTERM, SIGHUP and SIGQUIT as a wish to stop.

    Args:
        asked: the signals that came are appended.

    Yields:
        Nothing.
    """
    signs = [getattr(signal, name) for name in SIGNS if hasattr(signal, name)]
    before = [signal.signal(sign, lambda number, _: asked.append(number)) for sign in signs]
    try:
        yield
    finally:
        for sign, handler in zip(signs, before, strict=True):
            signal.signal(sign, handler)


@contextmanager
def bar(total: int, experiments: int) -> Iterator[Callable[[Progress], None]]:
    """A bar over all steps with rate and time left; where nobody looks, a line now and then.

    Args:
        total: steps.
        experiments: how many take them.

    Yields:
        What is told how far each experiment is.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    at: dict[str, int] = {}
    line = _seldom()
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as shown:
        title = f"{experiments} experiments"
        task = shown.add_task(title, total=total, rate="")

        def progress(one: Progress) -> None:
            at[one.hash] = one.step
            done, note = sum(at.values()), escaped(one.note)
            speed = shown.tasks[0].speed
            rate = f"{speed:,.0f} steps/s" if speed else ""
            shown.update(task, completed=done, rate=rate, description=note or title)
            if not console.is_terminal:
                line(note or f"{title}, {done:,} of {total:,} steps")

        yield progress


@contextmanager
def status(first: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done; where nobody looks, one now and then.

    Args:
        first: what is done at first.

    Yields:
        What is told what is being done.
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(escape(escaped(first))) as shown:
            yield lambda text: shown.update(escape(escaped(text)))
    else:
        yield _seldom()


def _seldom() -> Callable[[str], None]:
    said = time.monotonic()

    def line(text: str) -> None:
        nonlocal said
        if time.monotonic() - said > SELDOM:
            said = time.monotonic()
            typer.echo(escaped(text), err=True)
            sys.stderr.flush()

    return line
