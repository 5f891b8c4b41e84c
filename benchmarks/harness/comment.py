"""The comment on a pull request, in Markdown: what got worse first, what is as it was folded away."""

from collections.abc import Sequence

SHOWN = 30
"""Rows of a table before the rest is folded."""


def cell(text: str) -> str:
    """Text that cannot break a table or become markup."""
    kept = text.replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\").replace("|", "\\|")
    return " ".join(kept.replace("`", "\\`").replace("*", "\\*").replace("_", "\\_").split())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; empty without rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *[[cell(entry) for entry in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def folded(title: str, body: str) -> str:
    """A part that opens when it is clicked."""
    return f"<details><summary>{title}</summary>\n\n{body}\n</details>\n"


def section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], fold: bool = False) -> str:
    """A heading with the number of rows, and a table; empty without rows."""
    if not rows:
        return ""
    named = f"{title}: {len(rows)}"
    if fold:
        return folded(named, table(header, rows))
    more = folded(f"{len(rows) - SHOWN} more", table(header, rows[SHOWN:])) if len(rows) > SHOWN else ""
    return f"**{named}**\n\n{table(header, rows[:SHOWN])}{more}"


def comment(headline: str, sections: Sequence[str]) -> str:
    """The whole comment."""
    return "\n".join([f"### {headline}\n", *filter(None, sections)])
