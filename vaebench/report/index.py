"""The page over all reports in a directory."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vaebench.report.page import FORMAT, ICONS, index
from vaebench.report.writing import replaced
from vaebench.support.files import read_json

TEXTS, COUNTS = ("name", "scale", "question", "verdict"), ("arms", "runs", "diverged")


def write_index(root: str | os.PathLike[str]) -> Path:
    """Write `<root>/index.html` over the reports in the directories of root.

    Args:
        root: the reports are in `<root>/<name>/`; a directory without report.json is passed over, and one whose
            report.json is no report's is named on the page.

    Returns:
        The page's path.
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
    with replaced(root / "index.html") as temporary:
        temporary.write_text(index(reports, broken), encoding="utf-8", errors="backslashreplace")
    return root / "index.html"


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
