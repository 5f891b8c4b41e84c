"""CelebA: photographs decoded once into a memory-mapped cache."""

import hashlib
import math
import os
import re
import shutil
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from vaebench.data.files import (
    DamagedFileError,
    Directory,
    ProgressCallback,
    checksum_of,
    data_directory,
    read_whole,
    require_file,
)
from vaebench.support.checks import one_of
from vaebench.support.files import write_whole
from vaebench.support.texts import shown

FOLDER, PARTITION = "img_align_celeba", "list_eval_partition.txt"
URL = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
SPLITS = {"train": "0", "valid": "1", "test": "2"}
WIDTH, HEIGHT, CROP, SIDE = 178, 218, 148, 64
BLOCK = 256
ENTRY = re.compile(r"(?P<name>[!-~]+\.jpg) +(?P<split>[012]) *")

Shape = tuple[int, ...]


def celeba(split: str = "train", directory: Directory = None, progress: ProgressCallback = None) -> Tensor:
    """The faces of CelebA (Liu et al., 2015): 162,770 for training, 19,867 for validation and 19,962 for testing.

    Read from the aligned JPEGs `img_align_celeba/000001.jpg`, ... of 178 x 218 and `list_eval_partition.txt` in the
    directory; these are never fetched. The central 148 x 148 are resized to 64 x 64, bilinear with antialiasing.

    The first call decodes a split into a cache beside these files, `celeba-<split>-<key>.npy`, 12,288 bytes an
    image, with its checksum in a file beside it; later calls compare the two, once in a process, and map it into
    memory. A cache that was changed is decoded anew. The key stands for the names in the split: a partition that has
    changed is decoded anew. The photographs themselves are not looked at again; if they change, remove the cache.

    Args:
        split: "train", "valid" or "test".
        directory: of the files; default `VAEBENCH_DATA`, or else the user's cache directory.
        progress: called with the images done and in total, while decoding.

    Returns:
        uint8 (N, 3, 64, 64), over 255 they are the pixels. It is mapped, not read: memory is taken by what is used,
        and what is written to it stays in this process.

    Raises:
        FileNotFoundError: if one of these files is missing.
    """
    folder = data_directory(directory)
    names = _listed(folder, one_of("split", split, SPLITS))
    shape = (len(names), 3, SIDE, SIDE)
    cache = folder / f"celeba-{split}-{_key(names)}.npy"
    if not _is_whole(cache, shape):
        photographs = _photographs(folder, names)
        from filelock import FileLock

        with FileLock(f"{cache}.lock"):
            if not _is_whole(cache, shape):  # another process may have decoded it meanwhile
                _write(cache, shape, photographs, progress)
    return torch.from_numpy(open_memmap(cache, mode="c"))


def _listed(folder: Path, split: str) -> list[str]:
    """The names of the split, in the order of the partition."""
    path, names = folder / PARTITION, []
    if not path.exists():
        raise _missing(folder)
    text = read_whole(path).decode("ascii", errors="replace").rstrip()
    for number, line in enumerate(text.splitlines(), 1):
        if not (entry := ENTRY.fullmatch(line)):
            raise DamagedFileError(path, f"line {number} is {shown(line)}, not like '000001.jpg 0'")
        if entry["split"] == SPLITS[split]:
            names.append(entry["name"])
    if not names:
        raise DamagedFileError(path, f"it lists nothing for split {split!r}, {SPLITS[split]} in its second column")
    return names


def _key(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([f"bilinear {CROP} {SIDE}", *names]).encode()).hexdigest()[:16]


def _is_whole(cache: Path, shape: Shape) -> bool:
    beside = _checksum_file(cache)
    if not (cache.is_file() and beside.is_file()) or beside.read_bytes().strip() != checksum_of(cache).encode():
        return False
    try:
        images = open_memmap(cache, mode="r")
    except (ValueError, SyntaxError, TokenError):  # as numpy reads a header that is none
        return False
    return images.shape == shape and images.dtype == np.uint8


def _checksum_file(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.sha256")


def _missing(folder: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"CelebA is not in {folder}: put the folder {FOLDER} of the aligned JPEGs and the file {PARTITION} there, "
        f"from {URL}."
    )


def _photographs(folder: Path, names: Sequence[str]) -> list[Path]:
    if not (folder / FOLDER).is_dir():
        raise _missing(folder)
    present = set(os.listdir(folder / FOLDER))
    if absent := [name for name in names if name not in present]:
        raise FileNotFoundError(
            f"{len(absent)} of {len(names)} images that {PARTITION} lists are not in {folder / FOLDER}, "
            f"the first is {absent[0]}: put them there, from {URL}."
        )
    return [folder / FOLDER / name for name in names]


def _write(cache: Path, shape: Shape, photographs: Sequence[Path], progress: ProgressCallback) -> None:
    """Decode into a partial file, renamed when whole."""
    if (free := shutil.disk_usage(cache.parent).free) < (needed := math.prod(shape)):
        raise OSError(f"{cache} needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free: make room for it.")
    partial = cache.with_suffix(".partial")
    try:
        _decode(photographs, open_memmap(partial, "w+", np.uint8, shape), progress)
        write_whole(_checksum_file(cache), f"{checksum_of(partial)}\n".encode())
        partial.replace(cache)
    finally:
        partial.unlink(missing_ok=True)


def _decode(photographs: Sequence[Path], images: np.memmap, progress: ProgressCallback) -> None:
    """Fill the images block by block, on all cores: Pillow decodes without the interpreter's lock."""

    def fill(start: int) -> int:
        stop = min(start + BLOCK, len(photographs))
        for row in range(start, stop):
            images[row] = _face(photographs[row])
        return stop

    with ThreadPoolExecutor() as pool:
        for done in pool.map(fill, range(0, len(photographs), BLOCK)):
            if progress:
                progress(done, len(photographs))
    images.flush()


def _face(photograph: Path) -> np.ndarray:
    """(3, 64, 64)."""
    from PIL import Image

    left, top = (WIDTH - CROP) // 2, (HEIGHT - CROP) // 2
    require_file(photograph)
    try:
        with Image.open(photograph, formats=("JPEG",)) as image:
            if image.size != (WIDTH, HEIGHT):
                raise DamagedFileError(
                    photograph, f"it has {image.width} x {image.height} pixels, not {WIDTH} x {HEIGHT}"
                )
            face = image.convert("RGB").crop((left, top, left + CROP, top + CROP))
    except DamagedFileError:
        raise
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as trouble:
        raise DamagedFileError(photograph, "it is no whole JPEG") from trouble
    return np.asarray(face.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
