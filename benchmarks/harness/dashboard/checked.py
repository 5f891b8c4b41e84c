"""What asv reads, checked as it is read: its own reader and its search for steps take any file for a good one.

asv calls `setup` of the plugin once, which calls `install`. A file of results that is none is then left out with one
sentence, as asv leaves out those in the format of another version; another file that is none stops the publication with
one. A number that is infinite, or so large that sums of it are, is drawn nowhere: on those the search never ends.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from asv import util
from asv.graph import Graph

MACHINE, BENCHMARKS = "machine.json", "benchmarks.json"
LARGEST = 1e100
"""Numbers above are none that can be drawn or compared."""
LATEST = 1e14
"""Milliseconds since 1970: in the year 5138."""


def number(value: Any) -> bool:
    """Whether a value is a number that can be drawn and compared."""
    return isinstance(value, int | float) and abs(value) <= LARGEST


def drawable(value: Any) -> Any:
    """A value, or one for each parameter, with None for what cannot be drawn."""
    if isinstance(value, list):
        return [drawable(one) for one in value]
    return value if number(value) else None


def _texts(value: Any) -> bool:
    """Whether this is an object of texts, or of nulls, which asv takes for empty ones."""
    return isinstance(value, dict) and all(one is None or isinstance(one, str) for one in value.values())


def _moment(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= LATEST


def _list_of(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(good, value))


def _or_null(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or good(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _real(value: Any) -> bool:
    return isinstance(value, int | float)


HEAD: dict[str, Callable[[Any], bool]] = {
    "commit_hash": lambda value: _text(value) and bool(value),
    "date": _moment,
    "env_name": _text,
    "env_vars": _texts,
    "params": lambda value: _texts(value) and _text(value.get("machine")),
    "python": _text,
    "requirements": _texts,
    "result_columns": _list_of(_text),
    "results": lambda value: isinstance(value, dict),
}
"""What a file of results must have."""
COLUMNS: dict[str, Callable[[Any], bool]] = {
    "result": _or_null(_list_of(_or_null(_real))),
    "params": _list_of(_list_of(_text)),
    "version": _or_null(_text),
    "started_at": _or_null(_moment),
}
"""What it must have of a benchmark; quartiles and the like, too, are lists of numbers."""


def trouble(name: str, found: Any) -> str:
    """What is wrong with a JSON file of asv's, in a few words; empty if nothing is.

    Args:
        name: of the file.
        found: in it.
    """
    if not isinstance(found, dict):
        return "it holds no object"
    if name == MACHINE:
        return "" if _text(found.get("machine")) else "it does not name the machine"
    if name == BENCHMARKS:
        return next((f"{key} is no benchmark" for key, one in found.items() if not _benchmark(key, one)), "")
    given = {"env_vars": {}} | found
    wrong = next((key for key, good in HEAD.items() if not good(given.get(key))), None)
    if wrong is not None:
        return f"its {wrong} is missing or of another kind"
    return next((f"{key}: {why}" for key, one in given["results"].items() if (why := _row(given, one))), "")


def _benchmark(key: str, found: Any) -> bool:
    if key == "version":
        return True
    wanted = {"name": _text, "params": COLUMNS["params"], "param_names": _list_of(_text)}
    return isinstance(found, dict) and all(good(found.get(field)) for field, good in wanted.items())


def _row(file: dict[str, Any], found: Any) -> str:
    if not isinstance(found, list):
        return "no list of its values"
    columns = dict(zip(file["result_columns"], found, strict=False))
    checks = COLUMNS | {name: COLUMNS["result"] for name in columns if name.startswith("stats_")}
    return next((f"its {name} is of another kind" for name, good in checks.items() if not good(columns.get(name))), "")


def _of_results(path: Path) -> bool:
    """Whether a file is of the history, where every machine has a folder."""
    return path.name in {MACHINE, BENCHMARKS} or (path.parent / MACHINE).exists()


def _checked(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_json(path: Any, api_version: int | None = None, js_comments: bool = False) -> Any:
        if not _of_results(Path(path)):
            return load(path, api_version, js_comments)
        try:
            found = load(path, api_version, js_comments)
        except (TypeError, ValueError, RecursionError, OSError) as error:
            raise util.UserError(f"{path} cannot be read: {error or type(error).__name__}.") from None
        if why := trouble(Path(path).name, found):
            raise util.UserError(f"{path} is no file of asv's: {why}.")
        return found

    return load_json


def install() -> None:
    """Let asv read by these rules from now on."""
    util.load_json = _checked(util.load_json)
    add = Graph.add_data_point

    def add_data_point(self: Graph, revision: int, value: Any, weight: Any = None) -> None:
        add(self, revision, drawable(value), weight)

    Graph.add_data_point = add_data_point
