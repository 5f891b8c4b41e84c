"""Files of data sets: the directory they lie in, what is fetched with a checksum, and refusals of damage."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Directory = str | os.PathLike[str] | None
ProgressCallback = Callable[[int, int], None] | None

CHUNK = 2**20


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


def data_directory(directory: Directory = None) -> Path:
    """Where the files of data sets lie.

    Args:
        directory: the user's choice; None takes the environment variable `VAEBENCH_DATA`, or else the user's
            cache directory.

    Returns:
        The directory, which need not exist.
    """
    if chosen := directory or os.environ.get("VAEBENCH_DATA"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("vaebench")


def fetched(source: Source, directory: Path, progress: ProgressCallback = None) -> Path:
    """A file in the directory, downloaded if it is not there; only a download is compared with the checksum.

    Args:
        source: the file.
        directory: where it lies or is put.
        progress: called with the bytes done and in total, while downloading.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: if it is neither there nor to be had.
        ValueError: if the download's checksum differs.
    """
    path = directory / source.name
    if path.exists():
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
