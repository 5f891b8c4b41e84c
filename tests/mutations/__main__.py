"""`python -m tests.mutations [WORD ...]`: apply the mutations and see which tests notice; not in CI.

Each mutation changes one place of a copy of the repository, in a temporary directory, and runs the tests that should
fail there. What survives is named, by module; the exit status is 1 if anything does. A mutation whose text stands in
its module no more is looked for in its room; one whose text is nowhere there, or twice, is reported as stale. Numeric
pins of smoke tables are not among the tests. With words, those mutations run whose path or text has one of them; with
`missing`, those of which the ledger reports/faults/mutations.csv has no row. Rows of others are kept.
"""

import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import pytest

from tests import ledgers
from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ROOT / "reports/faults/mutations.csv"
PATIENCE = 600  # seconds for the tests of one mutation: one that hangs is found
HEAVY = ("torch", "torch.func", "scipy.stats", "pandas", "sklearn.datasets", "matplotlib.figure", "asv.results")
COLUMNS = ("module", "text", "mutation", "tests", "outcome")


def copied(folder: Path) -> Path:
    """A copy of what the tests need."""
    place = folder / "copy"
    ignored = shutil.ignore_patterns(".git", "__pycache__", ".venv", ".pytest_cache", "*.csv")
    shutil.copytree(ROOT, place, ignore=ignored)
    return place


def source_of(place: Path, one: Mutation) -> Path | None:
    """The file in which the mutation's text stands once: its own, or another of the same folder or below; or None."""
    own = place / one.path
    for candidates in ([own] if own.exists() else [], sorted(own.parent.rglob("*.py"))):
        counts = {path: path.read_text("utf-8").count(one.old) for path in candidates}
        if sum(counts.values()) == 1:
            return max(counts, key=lambda path: counts[path])
    return None


def ended(place: Path, tests: str) -> int | None:
    """The exit status of the tests in the copy; None if they did not come to an end.

    They run in a fork of this process, which has imported what takes seconds, and nothing of the package but files.
    """
    child = os.fork()
    if child == 0:
        _run(place, tests)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _run(place: Path, tests: str) -> NoReturn:
    """Run the tests in the copy, and leave the process."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"vaebench", "tests", "benchmarks"}]:
        del sys.modules[name]
    os.chdir(place)
    os.environ |= {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path[:] = [str(place), *(entry for entry in sys.path if entry and Path(entry) != ROOT)]
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    status = 3
    try:
        status = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *shlex.split(tests)]))
    finally:
        os._exit(status)


def outcome(place: Path, one: Mutation, sound: dict[str, bool]) -> str:
    """What becomes of a mutation: "killed", "survives", "stale", or "unsound" if its tests fail without it."""
    source = source_of(place, one)
    if source is None:
        return "stale"
    if one.tests not in sound:
        sound[one.tests] = ended(place, one.tests) == 0
    if not sound[one.tests]:
        return "unsound"
    text = source.read_text("utf-8")
    source.write_text(text.replace(one.old, one.new), encoding="utf-8")
    try:
        return {0: "survives", 1: "killed", 2: "killed", None: "killed"}.get(ended(place, one.tests), "unsound")
    finally:
        source.write_text(text, encoding="utf-8")


def read() -> dict[tuple[str, ...], dict[str, str]]:
    """The ledger's rows by module, text and mutation; of mutations that there still are."""
    known = {(one.path, one.old, one.new) for one in MUTATIONS}
    rows = {(row["module"], row["text"], row["mutation"]): row for row in ledgers.read(LEDGER)}
    return {key: row for key, row in rows.items() if key in known}


def main(words: list[str]) -> int:
    """Apply the mutations that are named, or all, and count."""
    rows, counts, sound = read(), Counter(), {}
    chosen = [one for one in MUTATIONS if not words or any(word in one.path or word in one.old for word in words)]
    if words == ["missing"]:
        chosen = [one for one in MUTATIONS if one[:3] not in rows]
    for name in HEAVY:
        import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        place = copied(Path(folder))
        for number, one in enumerate(chosen, 1):
            found = outcome(place, one, sound)
            counts[one.path, found] += 1
            rows[one[:3]] = dict(zip(COLUMNS, (*one, found), strict=True))
            ledgers.write(LEDGER, COLUMNS, rows.values())
            note = f": {one.old!r} -> {one.new!r}" if found != "killed" else ""
            print(f"{number}/{len(chosen)} {one.path} {found}{note}", flush=True)  # noqa: T201 (a command's progress)
    for path in dict.fromkeys(one.path for one in chosen):
        total = sum(count for (name, _), count in counts.items() if name == path)
        print(f"{path}: {counts[path, 'killed']} of {total} killed")  # noqa: T201 (a command's result)
    return int(any(kind != "killed" for _, kind in counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
