"""The page over all reports in a directory."""

import json
import os
from pathlib import Path
from typing import Any

from vaebench.report.page import FORMAT, index
from vaebench.report.writing import replaced


def write_index(root: str | os.PathLike[str]) -> Path:
    """Write `<root>/index.html` over the reports in the directories of root.

    Args:
        root: the reports are in `<root>/<name>/`; a directory without report.json is passed over.

    Returns:
        The page's path.

    Raises:
        ValueError: if a report.json cannot be read.
    """
    root = Path(root)
    found = sorted(path for path in root.glob("*/report.json") if not path.parent.name.startswith("."))
    text = index([_read(path) | {"path": f"{path.parent.name}/index.html"} for path in found])
    with replaced(root / "index.html") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return root / "index.html"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is no report of format {FORMAT}: write the report again, or delete it.")
    return found
