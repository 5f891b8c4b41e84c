"""Files that are either whole or not there, and JSON that is read with limits."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaebench.support.texts import escaped, shown

LARGEST_FILE = 2**32  # bytes
LARGEST_JSON = 2**26  # bytes
DEEPEST_JSON = 60  # objects and lists within each other


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, replacing what was there in one rename, and make its directory; a crash leaves the old file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: Path) -> bytes:
    """All bytes of a file.

    Returns:
        The bytes.

    Raises:
        ValueError: if a directory, a pipe or a device is in its place, or it has more than 4 GiB.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a directory, a pipe or a device, not a file.")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{path} has {size:,} bytes, and at most {LARGEST_FILE:,} are read.")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Read a JSON file whose every key stands once and whose texts are Unicode.

    Returns:
        What it holds.

    Raises:
        ValueError: if it is no file, larger than 64 MiB, not JSON, cut short, nested too deeply, or says a key twice.
    """
    if not path.is_file():
        raise ValueError(f"{path} is a directory, not a file." if path.is_dir() else f"There is no file {str(path)!r}.")
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, and JSON of at most {LARGEST_JSON:,} is read.")
    try:
        return parse_json(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, or is cut short or damaged: {_what(error)}.") from None


def parse_json(text: str) -> Any:
    """Read JSON whose every key stands once and whose texts are Unicode.

    Returns:
        What it holds.

    Raises:
        ValueError: if it is not JSON, nested too deeply, says a key twice or holds half of a surrogate pair.
    """
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _require_plain(found)
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it says {next(shown(key) for key in keys if keys.count(key) > 1)} twice")
    return made


def _require_plain(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(DEEPEST_JSON):
        texts = [one for one in level if isinstance(one, str)]
        texts += [key for one in level if isinstance(one, dict) for key in one]
        if bad := [text for text in texts if not _is_unicode(text)]:
            raise ValueError(f"it holds half of a surrogate pair, {shown(bad[0])}")
        level = [inner for one in level for inner in _within(one)]
        if not level:
            return
    raise ValueError(f"it is nested more than {DEEPEST_JSON} deep")


def _within(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _what(error: ValueError) -> str:
    return escaped(str(error)).rstrip(".")
