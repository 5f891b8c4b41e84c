"""Tables of long runs in CSV, as text: read where there is one, and written whole after every row."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from vaebench.support.files import write_whole

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """The rows that there are."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write all rows; what a row lacks is empty."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue().encode())
