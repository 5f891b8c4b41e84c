"""CSV tables that are written whole or not at all, and grow row by row."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from vaebench.support.files import write_whole


def read(path: Path) -> pd.DataFrame:
    """A table as text; empty where there is no file."""
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()


def matching(table: pd.DataFrame, key: Mapping[str, object]) -> pd.Series:
    """Which rows have these entries."""
    return (table[list(key)] == [str(value) for value in key.values()]).all(axis=1)


def has(table: pd.DataFrame, key: Mapping[str, object]) -> bool:
    """Whether a table has a row with these entries."""
    return len(table) > 0 and bool(matching(table, key).any())


def replace(path: Path, rows: Sequence[Mapping[str, object]], key: Mapping[str, object]) -> None:
    """Put rows in the place of those with the entries of `key`, or at the end."""
    table = read(path)
    kept = table[~matching(table, key)] if len(table) else table
    new = pd.DataFrame([{name: str(value) for name, value in row.items()} for row in rows])
    joined = pd.concat([kept, new]).fillna("")
    write_whole(path, joined.to_csv(index=False, lineterminator="\n").encode())
