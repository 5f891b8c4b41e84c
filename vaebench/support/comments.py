"""The comment on a pull request, in Markdown: what got worse first, what is as it was folded away."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

SHOWN = 30
"""Rows of a table before the rest is folded."""
LONGEST = 20_000
"""Characters of a comment: GitHub takes 65,536, and three share one."""


class Section(NamedTuple):
    """A heading with the number of rows, and their table.

    Attributes:
        title: of the section.
        header: of the columns.
        rows: cells as text.
        folded: whether all of it opens only when it is clicked.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


def cell(text: str) -> str:
    r"""A text that cannot break a table or become markup.

    Args:
        text: any text.

    Returns:
        Markdown that shows it; line breaks become spaces.

    >>> print(cell("a|b <i> x_1"))
    a\|b &lt;i&gt; x\_1
    """
    plain = " ".join(escape(text, quote=False).split())
    for sign in "\\`*_[]|#":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def comment(headline: str, sections: Sequence[Section]) -> str:
    """The whole comment.

    Args:
        headline: what came out, in one sentence.
        sections: in the order in which they are read; those without rows are left out.

    Returns:
        Markdown of at most `LONGEST` characters: if there is more, the longest tables end with how much.
    """
    most = max((len(section.rows) for section in sections), default=0)
    while len(text := _written(headline, sections, most)) > LONGEST and most:
        most //= 2
    return text


def _written(headline: str, sections: Sequence[Section], most: int) -> str:
    return "\n".join([f"### {headline}\n", *(_section(section, most) for section in sections if section.rows)])


def _section(section: Section, most: int) -> str:
    title, header, rows, folded = section
    named, kept = f"{title}: {len(rows)}", rows[:most]
    left_out = f"\n{len(rows) - most} more are left out.\n" if len(rows) > most else ""
    if folded:
        return _folded(named, _table(header, kept) + left_out)
    more = _folded(f"{len(rows) - SHOWN} more", _table(header, kept[SHOWN:]) + left_out) if len(rows) > SHOWN else ""
    return f"**{named}**\n\n{_table(header, kept[:SHOWN])}{more}{left_out if not more else ''}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *[[cell(entry) for entry in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n" if rows else ""


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n</details>\n"
