"""Data sets of a few files, which are fetched where the network allows: MNIST and CIFAR-100.

They lie in a directory, by default `VAEBENCH_DATA`, or else the user's cache directory; progress is told the bytes done
and in total while one is downloaded.
"""

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaebench.data.files import (
    CHUNK,
    DamagedFileError,
    Directory,
    ProgressCallback,
    Source,
    data_directory,
    fetched,
    read_whole,
    require_file,
)
from vaebench.support.checks import one_of
from vaebench.support.texts import escaped

MNIST = {
    "train": Source(
        "train-images-idx3-ubyte.gz",
        "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "test": Source(
        "t10k-images-idx3-ubyte.gz",
        "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
}
CIFAR100 = Source(
    "cifar-100-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)
SIDE, IDX_MAGIC, IDX_HEADER = 28, 0x803, struct.Struct(">4I")
LABELS, CHANNELS = 2, (3, 32, 32)
RECORD = LABELS + 3 * 32 * 32
MOST_IMAGES = 10**6
MOST_BYTES = 2**29  # of an archive, unpacked; the original's are 2^27.5
UNREADABLE = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError, OverflowError, struct.error)


def mnist(split: str = "train", directory: Directory = None, progress: ProgressCallback = None) -> Tensor:
    """The handwritten digits of MNIST (LeCun et al., 1998), 60,000 to "train" and 10,000 to "test".

    Read from `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte`, plain or .gz, in the directory; the .gz is fetched
    if neither is there.

    Returns:
        uint8 (N, 28, 28); over 255 they are the pixels.
    """
    source, folder = MNIST[one_of("split", split, MNIST)], data_directory(directory)
    plain = folder / source.name.removesuffix(".gz")
    return _idx_images(plain if plain.exists() else fetched(source, folder, progress))


def cifar100(split: str = "train", directory: Directory = None, progress: ProgressCallback = None) -> Tensor:
    """The small photographs of CIFAR-100 (Krizhevsky, 2009), 50,000 to "train" and 10,000 to "test".

    Read from the binary version: `cifar-100-binary/train.bin` or `test.bin` in the directory, or else inside
    `cifar-100-binary.tar.gz` there, which is fetched if it is missing.

    Returns:
        uint8 (N, 3, 32, 32), channels red, green, blue; over 255 they are the pixels.

    Raises:
        DamagedFileError: if the file does not consist of whole records.
    """
    folder, member = data_directory(directory), f"cifar-100-binary/{one_of('split', split, ('train', 'test'))}.bin"
    path = folder / member
    if path.exists():
        content = read_whole(path)
    else:
        path = fetched(CIFAR100, folder, progress)
        content = _member(path, member)
    if not content or len(content) % RECORD:
        raise DamagedFileError(path, f"{member} has {len(content)} bytes, not records of {RECORD} each")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return torch.from_numpy(records[:, LABELS:].copy()).view(-1, *CHANNELS)


def _idx_images(path: Path) -> Tensor:
    """No more is read than the header announces, and one byte to see that it ends there."""
    require_file(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(IDX_HEADER.size)
            count = _images_announced(path, header)
            content = bytearray(file.read(count * SIDE**2))
            beyond = file.read(1)
    except DamagedFileError:
        raise
    except UNREADABLE as trouble:
        raise DamagedFileError(path, escaped(str(trouble)) or type(trouble).__name__) from trouble
    if beyond or len(content) != count * SIDE**2:
        held = "more" if beyond else len(content)
        raise DamagedFileError(path, f"it announces {count} images, {count * SIDE**2} bytes, and holds {held}")
    return torch.frombuffer(content, dtype=torch.uint8).view(count, SIDE, SIDE)


def _images_announced(path: Path, header: bytes) -> int:
    if len(header) < IDX_HEADER.size:
        raise DamagedFileError(path, f"it has {len(header)} bytes, fewer than a header of {IDX_HEADER.size}")
    magic, count, rows, columns = IDX_HEADER.unpack(header)
    if magic != IDX_MAGIC:
        raise DamagedFileError(path, f"its magic number is {magic}, not {IDX_MAGIC}, that of IDX images")
    if not 0 < count <= MOST_IMAGES or (rows, columns) != (SIDE, SIDE):
        wanted = f"1 to {MOST_IMAGES:,} of {SIDE} x {SIDE}"
        raise DamagedFileError(path, f"it announces {count} images of {rows} x {columns}, not {wanted}")
    return count


def _member(path: Path, member: str) -> bytes:
    """A file of an archive, which is read to its end: only there gzip says whether what it gave was right."""
    content = None
    require_file(path)
    try:
        with gzip.open(path) as packed, tarfile.open(fileobj=(stream := _Limited(path, packed)), mode="r|") as archive:
            for entry in archive:
                if entry.name == member and entry.isreg() and content is None:
                    content = _contents(path, archive, entry)
            while block := stream.read(CHUNK):
                if block.strip(b"\0"):
                    raise DamagedFileError(path, "it goes on after the end of its archive")
    except DamagedFileError:
        raise
    except UNREADABLE as trouble:
        raise DamagedFileError(path, escaped(str(trouble)) or type(trouble).__name__) from trouble
    if content is None:
        raise DamagedFileError(path, f"there is no {member} in it")
    return content


def _contents(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    content = file.read(entry.size) if file else b""
    if len(content) < entry.size:
        raise DamagedFileError(path, f"{entry.name} ends after {len(content):,} of {entry.size:,} bytes")
    return content


class _Limited(io.RawIOBase):
    """A stream that gives up where it unpacks to more than any original does."""

    def __init__(self, path: Path, stream: gzip.GzipFile):
        self.path, self.stream, self.left = path, stream, MOST_BYTES

    def read(self, size: int = -1) -> bytes:
        wanted = self.left + 1 if size < 0 else min(size, self.left + 1)
        block = self.stream.read(wanted)
        self.left -= len(block)
        if self.left < 0:
            raise DamagedFileError(self.path, f"it unpacks to more than {MOST_BYTES:,} bytes")
        return block
