"""Photographs that nobody took, in the file formats of CIFAR-100 and CelebA."""

from pathlib import Path

import numpy as np
from PIL import Image

from vaebench.data.decoded import FOLDER, HEIGHT, PARTITION, SPLITS, WIDTH

CIFAR_SPLITS = ("train", "test")


def write_cifar100(directory: Path, rows: int, generator: np.random.Generator) -> None:
    """Write `cifar-100-binary/train.bin` and `test.bin`: two labels and 3 x 32 x 32 bytes a record.

    Args:
        directory: of the data sets.
        rows: records in each file.
        generator: draws them.
    """
    folder = directory / "cifar-100-binary"
    folder.mkdir(parents=True, exist_ok=True)
    for split in CIFAR_SPLITS:
        labels = generator.integers(0, 20, (rows, 2), dtype=np.uint8)
        pixels = np.stack([_photograph(32, 32, generator).transpose(2, 0, 1).reshape(-1) for _ in range(rows)])
        (folder / f"{split}.bin").write_bytes(np.concatenate([labels, pixels], 1).tobytes())


def write_celeba(directory: Path, rows: int, generator: np.random.Generator) -> None:
    """Write aligned JPEGs and the list that divides them into training, validation and test.

    Args:
        directory: of the data sets.
        rows: photographs in each split.
        generator: draws them.
    """
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(1, len(SPLITS) * rows + 1):
        name = f"{number:06d}.jpg"
        Image.fromarray(_photograph(HEIGHT, WIDTH, generator)).save(folder / name, quality=90)
        lines.append(f"{name} {(number - 1) // rows}")
    (directory / PARTITION).write_text("\n".join(lines) + "\n", "ascii")


def _photograph(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Soft blobs of colour, (height, width, 3)."""
    few = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(few.resize((width, height), Image.Resampling.BICUBIC))
