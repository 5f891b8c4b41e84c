"""The pages over all reports in a directory: one in HTML for a browser, one in Markdown for a repository."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from vaebench.report.markdown import Opening, opening
from vaebench.report.page import FORMAT, ICONS, index
from vaebench.report.writing import replaced
from vaebench.support.files import read_json

TEXTS, COUNTS = ("name", "scale", "question", "verdict"), ("arms", "runs", "diverged")

CONTENTS = "README.md"


class Written(NamedTuple):
    """A page in Markdown: where it lies, and how it begins."""

    path: str
    opening: Opening


def write_index(root: str | os.PathLike[str]) -> Path:
    """Write `<root>/index.html` over the reports in the directories of root, and over the pages in Markdown there.

    Returns:
        The page's path. A directory without report.json or README.md is passed over, and one whose report.json is
        no report's is named on the page.
    """
    root = Path(root)
    reports, broken = [], []
    for path in sorted(root.glob("*/report.json")):
        if path.parent.name.startswith("."):
            continue
        found = _read(path)
        if found is None:
            broken.append(path.parent.name)
        else:
            reports.append(found | {"path": f"{quote(path.parent.name, safe='')}/index.html"})
    _replace(root / "index.html", index(reports, written_pages(root), broken))
    return root / "index.html"


def write_contents(root: str | os.PathLike[str]) -> Path:
    """Write `<root>/README.md`: every page in Markdown below root, by title, with what it says first."""
    root = Path(root)
    _replace(root / CONTENTS, contents(written_pages(root)))
    return root / CONTENTS


def contents(pages: Sequence[Written]) -> str:
    """A list of pages, in Markdown."""
    text = "# Reports\n\nWhat was asked, what came out, and whether to trust it. Every page is generated or tested"
    text += " against its tables. The studies' own pages, with every figure, are made by `make studies`.\n"
    for page in pages:
        text += f"\n## [{page.opening.title}]({page.path})\n\n{page.opening.text}\n"
    return text


def written_pages(root: Path) -> list[Written]:
    """The pages in Markdown that an index lists: those of root, but for the list itself, and each directory's first.

    Returns:
        Findings first, then the others by their path, then certificates.
    """
    paths = [path for path in root.glob("*.md") if path.name != CONTENTS]
    paths += [path for path in root.glob(f"*/{CONTENTS}") if not path.parent.name.startswith(".")]
    paths += root.glob(f"history/*/{CONTENTS}")
    places = sorted(path.relative_to(root).as_posix() for path in paths)
    found = [Written(place, opening((root / place).read_text("utf-8"))) for place in places]
    found += [_certificate(root, path) for path in sorted(root.glob("certificates/*/certificate.md"))]
    return sorted(found, key=lambda page: page.path != "FINDINGS.md")


def _certificate(root: Path, path: Path) -> Written:
    """A certificate says in its title what others say in their first lines."""
    text = opening(path.read_text("utf-8")).title
    return Written(path.relative_to(root).as_posix(), Opening(f"Certificate of {path.parent.name}", text))


def _replace(path: Path, text: str) -> None:
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _read(path: Path) -> dict[str, Any] | None:
    """A report.json; None if it is another file."""
    try:
        found = read_json(path)
    except (ValueError, OSError):
        return None
    return found if isinstance(found, dict) and _is_report(found) else None


def _is_report(found: Mapping[str, Any]) -> bool:
    answers, commits = found.get("answers"), found.get("commits")
    return (
        found.get("format") == FORMAT
        and all(isinstance(found.get(name), str) for name in TEXTS)
        and all(type(found.get(name)) is int for name in COUNTS)
        and isinstance(found.get("state"), str)
        and found["state"] in ICONS
        and isinstance(answers, list)
        and all(isinstance(one, dict) and {"about", "text"} <= set(one) for one in answers)
        and isinstance(commits, list)
        and all(isinstance(one, str) for one in commits)
    )
