"""What may lie where a file should be: a directory, a link in a circle, a pipe, a device without end."""

import os
import shutil
import socket
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.harness import FAULTS, OUTCOMES, Subject, outcome_of


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def links_in_a_circle(path: Path) -> None:
    other = path.with_name("other-link")
    other.symlink_to(path)
    path.symlink_to(other)


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing-here"))


def link_to_its_directory(path: Path) -> None:
    path.symlink_to(path.parent)


def directory(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a path of a socket has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def holes(path: Path) -> None:
    """Sixteen terabytes of nothing, that take no room on the disk."""
    with path.open("wb") as file:
        file.truncate(2**44)


def forbidden(path: Path) -> None:
    path.touch()
    path.chmod(0)


PLACES: tuple[Callable[[Path], None], ...] = (
    link_to_itself, links_in_a_circle, link_to_nothing, link_to_its_directory, directory, empty, pipe, listening,
    endless_device, holes, forbidden,
)  # fmt: skip


def misplace(subject: Subject) -> tuple[Counter[str], list[str]]:
    """Put each of them where a subject's file should be, and read it.

    Args:
        subject: the file; it lies there again afterwards.

    Returns:
        Counts by outcome, and a line for each fault.
    """
    path, content = subject.path, subject.path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files of data are not the originals
        right = subject.read()
    counts, faults = Counter(dict.fromkeys(OUTCOMES, 0)), []
    for place in PLACES:
        path.unlink()
        try:
            place(path)
        except OSError:  # a disk without files of such a size, or without sockets
            path.write_bytes(content)
            continue
        outcome, what = outcome_of(subject, b"", right)
        counts[outcome] += 1
        if outcome in FAULTS:
            faults.append(f"{subject.name} ({place.__name__}): {outcome}: {what}")
        _clear(path)
        _clear(path.with_name("other-link"))
        path.write_bytes(content)
    return counts, faults


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
