"""Data sets of a few files, which are fetched where the network allows: MNIST and CIFAR-100."""

import gzip
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaebench.data.files import DamagedFileError, Directory, ProgressCallback, Source, data_directory, fetched
from vaebench.support.checks import one_of

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
UNREADABLE = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.ReadError)


def mnist(split: str = "train", directory: Directory = None, progress: ProgressCallback = None) -> Tensor:
    """The handwritten digits of MNIST (LeCun et al., 1998), 60,000 for training and 10,000 for testing.

    Read from `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte`, plain or .gz, in the directory; the .gz is
    fetched if neither is there.

    Args:
        split: "train" or "test".
        directory: of the files; default `VAEBENCH_DATA`, or else the user's cache directory.
        progress: called with the bytes done and in total, while downloading.

    Returns:
        uint8 (N, 28, 28); over 255 they are the pixels.
    """
    source, folder = MNIST[one_of("split", split, MNIST)], data_directory(directory)
    plain = folder / source.name.removesuffix(".gz")
    return _idx_images(plain if plain.exists() else fetched(source, folder, progress))


def cifar100(split: str = "train", directory: Directory = None, progress: ProgressCallback = None) -> Tensor:
    """The small photographs of CIFAR-100 (Krizhevsky, 2009), 50,000 for training and 10,000 for testing.

    Read from the binary version: `cifar-100-binary/train.bin` or `test.bin` in the directory, or else inside
    `cifar-100-binary.tar.gz` there, which is fetched if it is missing.

    Args:
        split: "train" or "test".
        directory: of the files; default `VAEBENCH_DATA`, or else the user's cache directory.
        progress: called with the bytes done and in total, while downloading.

    Returns:
        uint8 (N, 3, 32, 32), channels red, green, blue; over 255 they are the pixels.

    Raises:
        DamagedFileError: if the file does not consist of whole records.
    """
    folder, member = data_directory(directory), f"cifar-100-binary/{one_of('split', split, ('train', 'test'))}.bin"
    path = folder / member
    if path.exists():
        content = path.read_bytes()
    else:
        path = fetched(CIFAR100, folder, progress)
        content = _member(path, member)
    if not content or len(content) % RECORD:
        raise DamagedFileError(path, f"{member} has {len(content)} bytes, not records of {RECORD} each")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return torch.from_numpy(records[:, LABELS:].copy()).view(-1, *CHANNELS)


def _idx_images(path: Path) -> Tensor:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = bytearray(file.read())
    except UNREADABLE as trouble:
        raise DamagedFileError(path, str(trouble)) from trouble
    if len(content) < IDX_HEADER.size:
        raise DamagedFileError(path, f"it has {len(content)} bytes, fewer than a header of {IDX_HEADER.size}")
    magic, count, rows, columns = IDX_HEADER.unpack_from(content)
    if magic != IDX_MAGIC:
        raise DamagedFileError(path, f"its magic number is {magic}, not {IDX_MAGIC}, that of IDX images")
    if not count or (rows, columns) != (SIDE, SIDE):
        raise DamagedFileError(path, f"it announces {count} images of {rows} x {columns}, not some of {SIDE} x {SIDE}")
    if (found := len(content) - IDX_HEADER.size) != (announced := count * SIDE**2):
        raise DamagedFileError(path, f"it announces {count} images, {announced} bytes, and holds {found}")
    return torch.frombuffer(content, dtype=torch.uint8, offset=IDX_HEADER.size).view(count, SIDE, SIDE)


def _member(path: Path, member: str) -> bytes:
    try:
        with tarfile.open(path, "r:gz") as archive:
            file = archive.extractfile(member)
            content = file.read() if file else b""
    except UNREADABLE as trouble:
        raise DamagedFileError(path, str(trouble)) from trouble
    except KeyError:
        raise DamagedFileError(path, f"there is no {member} in it") from None
    return content
