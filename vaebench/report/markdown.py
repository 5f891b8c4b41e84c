"""Pages in Markdown: tables, and what a page says first."""

import re
from collections.abc import Sequence
from typing import NamedTuple

LINK = re.compile(r"!?\[([^]]*)\]\([^)]*\)")


class Opening(NamedTuple):
    """How a page begins: its title, and its first paragraph without links."""

    title: str
    text: str


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A table in Markdown.

    Args:
        header: of the columns.
        rows: cells as text; a bar in one of them is kept from ending it.

    Returns:
        The lines, the last one ended.

    >>> print(table(["a", "b"], [["|x|", "2"]]), end="")
    | a | b |
    | --- | --- |
    | \|x\| | 2 |
    """
    cells = [[cell.replace("|", r"\|") for cell in line] for line in (header, *rows)]
    lines = [cells[0], ["---"] * len(header), *cells[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def opening(page: str) -> Opening:
    r"""The title and the first paragraph or list of a page in Markdown, by which an index tells what it is about.

    Returns:
        Both, as plain text; links are their words.

    >>> opening("# A title\n\nFirst [words](a.md)\nof it.\n\nMore.")
    Opening(title='A title', text='First words of it.')
    """
    title, _, rest = page.strip().partition("\n")
    lines = [line.strip().removeprefix("* ") for line in rest.strip().split("\n\n")[0].splitlines()]
    return Opening(title.lstrip("# "), LINK.sub(r"\1", " ".join(lines)).replace("**", ""))
