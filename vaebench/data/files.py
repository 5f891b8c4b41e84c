"""Files of data sets: the directory they lie in, what is fetched with a checksum, and refusals of damage."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

Directory = str | os.PathLike[str] | None
ProgressCallback = Callable[[int, int], None] | None

CHUNK = 2**20
LARGEST_FILE = 2**30


class Source(NamedTuple):
    """A file that can be fetched.

    Attributes:
        name: of the file.
        url: where it can be had from.
        sha256: its checksum, 64 hexadecimal digits.
    """

    name: str
    url: str
    sha256: str


class DamagedFileError(ValueError):
    """A file that is not what it should be: the file, and what is wrong with it."""

    def __init__(self, path: Path | str, what: str):
        super().__init__(path, what)

    def __str__(self) -> str:
        path, what = self.args
        return f"{path} is damaged or another file: {what}; remove it and get it again."


class NotOriginalWarning(UserWarning):
    """A file of a data set whose original is known, and that differs from it."""


def fingerprint(rows: Tensor) -> str:
    """A digest of data (N, *event), the sha256 of dtype, shape and bytes: two data sets of one digest are the same.

    Returns:
        64 hexadecimal digits.

    >>> fingerprint(torch.zeros(2, 3))[:8]
    '4482deb5'
    """
    found = hashlib.sha256(f"{rows.dtype} {tuple(rows.shape)}\n".encode())
    for block in rows.split(max(1, CHUNK // max(1, rows[0].numel()))):
        found.update(block.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@cache
def checksum(path: Path, size: int, changed: int) -> str:
    """The sha256 of a file, computed once in a process while its size and the time it was written stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_of(path: Path) -> str:
    """The sha256 of a file as it is now, 64 hexadecimal digits."""
    about = path.stat()
    return checksum(path, about.st_size, about.st_mtime_ns)


def data_directory(directory: Directory = None) -> Path:
    """The directory chosen, or `VAEBENCH_DATA` of the environment, or the user's cache directory; it need not exist."""
    if chosen := directory or os.environ.get("VAEBENCH_DATA"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("vaebench")


def require_file(path: Path) -> None:
    """Refuse a directory, a pipe, a device and more than 2^30 bytes, as a `DamagedFileError`."""
    if not path.is_file():
        raise DamagedFileError(path, "it is no file")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise DamagedFileError(path, f"it has {size:,} bytes")


def read_whole(path: Path) -> bytes:
    """All bytes of a file; what `require_file` refuses is refused."""
    require_file(path)
    return path.read_bytes()


def fetched(source: Source, directory: Path, progress: ProgressCallback = None) -> Path:
    """The path of a file in the directory, downloaded if it is not there; progress is told the bytes done and in total.

    A download with another checksum is refused. A file that was there is used whatever it holds, and a
    `NotOriginalWarning` says if it differs from the original.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: if it is neither there nor to be had.
        ValueError: if the download's checksum differs.
    """
    path = directory / source.name
    if path.exists():
        if path.is_file() and (found := checksum_of(path)) != source.sha256:
            text = f"{path} is not the original {source.name}: its sha256 is {found}, not {source.sha256}."
            warnings.warn(text, NotOriginalWarning, stacklevel=3)
        return path
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            partial = Path(scratch) / source.name
            _download(source, partial, progress)
            partial.replace(path)
    except OSError as trouble:
        raise FileNotFoundError(
            f"{source.name} is not in {directory} and could not be fetched ({type(trouble).__name__}): "
            f"put it there, from {source.url}."
        ) from trouble
    return path


def _download(source: Source, target: Path, progress: ProgressCallback) -> None:
    import pooch

    bar: Any = _Bar(progress) if progress else False  # pooch takes any bar, and annotates a bool
    try:
        pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK)(source.url, str(target), None)
    except OSError as trouble:
        if (response := getattr(trouble, "response", None)) is not None:
            response.close()  # an error of the server leaves it open
        raise
    if (found := pooch.file_hash(str(target))) != source.sha256:
        raise ValueError(
            f"What {source.url} sent is not {source.name}: its sha256 is {found}, not {source.sha256}; "
            "put the file into the directory yourself."
        )


class _Bar:
    """What pooch takes for a progress bar."""

    def __init__(self, progress: Callable[[int, int], None]):
        self.progress = progress
        self.done = self.total = 0

    def update(self, count: int) -> None:
        self.done = min(self.done + count, self.total)
        if self.total:  # the server may not tell
            self.progress(self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass
