"""Reports on disk: a directory that is whole, or the one that was there before."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from vaebench.experiments.trajectory import Trajectory
from vaebench.report.bands import Summary
from vaebench.report.page import contents
from vaebench.report.study import Study, results

TRIES = 100  # of taking a path's place, while other processes take it


def write(
    study: Study,
    trajectories: Mapping[str, Trajectory],
    summaries: Mapping[str, Summary],
    directory: str | os.PathLike[str],
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a study's report, in place of an earlier one; the bytes depend on nothing but what is given.

    Args:
        study: what was asked, and of which arms.
        trajectories: what was recorded, by hash.
        summaries: what that says, by hash; none for an experiment of which every seed diverged.
        directory: is made; holds index.html, report.json, experiments.json, figures and tables.
        progress: told what is being drawn.

    Returns:
        The path of index.html; `results` and `write_report` say what they refuse.
    """
    return write_report(directory, contents(study, results(study, trajectories, summaries), progress))


def write_report(directory: str | os.PathLike[str], files: Mapping[str, bytes]) -> Path:
    """Write a report's files, by their paths, index.html and report.json among them, in place of an earlier one's.

    Returns:
        The path of index.html.

    Raises:
        ValueError: if the directory holds anything but a report.
    """
    directory = Path(directory)
    if directory.exists() and not ((directory / "report.json").is_file() or _empty(directory)):
        raise ValueError(f"{directory} holds something other than a report: choose another directory, or clear it.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with replaced(directory) as temporary:
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return directory / "index.html"


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A name beside a path, to be written to; at the end, if all went well, it takes the place of what is there.

    Where several processes write to one path, the last one's stays, whole.

    Raises:
        OSError: if it cannot.
    """
    temporary, old = names_beside(path)
    _restore(path, old)
    _remove(temporary)  # of a process of the same number that was killed
    try:
        yield temporary
        _take_place(temporary, path, old)
    except BaseException:
        _restore(path, old)
        raise
    finally:
        _remove(temporary)
        _remove(old)


def _take_place(temporary: Path, path: Path, old: Path) -> None:
    for left in range(TRIES, -1, -1):
        with suppress(FileNotFoundError, NotADirectoryError):
            if path.is_dir():
                path.rename(old)
        try:
            temporary.rename(path)
            return
        except OSError as refusal:  # another process has put its own there in between
            if refusal.errno not in {errno.ENOTEMPTY, errno.EEXIST} or not left:
                raise
            _remove(old)


def _restore(path: Path, old: Path) -> None:
    if old.exists() and not path.exists():
        old.rename(path)


def _remove(path: Path) -> None:
    path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def names_beside(path: Path) -> tuple[Path, Path]:
    """Names of this process's own beside a path, of what will take its place and of what was there."""
    first, second = (path.with_name(f".{path.name}.{os.getpid()}{end}") for end in (".new", ".old"))
    return first, second


def _empty(directory: Path) -> bool:
    return directory.is_dir() and not any(directory.iterdir())
