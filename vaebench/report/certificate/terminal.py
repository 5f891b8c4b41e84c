"""A certificate in a terminal of 80 columns: the verdict first, then one line for each gate."""

import textwrap
from collections.abc import Iterator

from vaebench.experiments.certifying import Findings
from vaebench.report.certificate.words import SAID, headline, of_section, tiles

WIDTH = 80
MARKS = {"pass": "pass", "fail": "FAIL", "no power": "NO POWER"}
INDENT = " " * 12


def lines(found: Findings, verbose: bool = False) -> Iterator[str]:
    """What to print.

    Args:
        found: the findings.
        verbose: also what every gate claims and how it was measured, and what was left out and why.

    Yields:
        Lines of at most 80 columns, in plain text.
    """
    yield from textwrap.wrap(f"{SAID[found.outcome].upper()}: {headline(found)}", WIDTH)
    yield ""
    for tile in tiles(found):
        yield f"{tile.question:<11} {tile.answer}"[:WIDTH]
        yield from textwrap.wrap(tile.text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
    yield ""
    for section in ("right", "guarantee"):
        for one in of_section(found, section):
            v = one.verdict
            name, smallest = f"{v.gate}, {one.place}", "" if v.smallest is None else f", finds {v.smallest:.2g}"
            numbers = f"{v.statistic:.3g} of {v.threshold:.3g}{smallest}"
            yield f"{MARKS[v.outcome]:<8} {name:<39.39} {numbers}"[:WIDTH]
            if verbose:
                yield from textwrap.wrap(str(v), WIDTH, initial_indent="    ", subsequent_indent="    ")
    count = len(found.left_out)
    if verbose:
        for line in found.left_out:
            yield from textwrap.wrap(f"left out: {line}", WIDTH, subsequent_indent="    ")
    elif count:
        yield f"{count} {'thing was' if count == 1 else 'things were'} left out; --verbose says which, and why."
