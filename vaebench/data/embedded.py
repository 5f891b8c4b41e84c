"""Data sets that need no file of the user's: embedded in scikit-learn, or simulated. Float tensors (N, *event).

Dtype and device are those of the result.
"""

from importlib import util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaebench.support.checks import available_device, one_of, positive_integer, within

TEST_COLUMNS = 128
TRAINING_DIGITS = 1500


def digits(split: str = "all", dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """The 1,797 handwritten 8x8 digits that ship inside scikit-learn (Alpaydin & Kaynak, 1998).

    Returns:
        (1797, 8, 8), or of the split "train" the first 1500, of "test" the last 297, in [0, 1].
    """
    ends = {"all": (0, None), "train": (0, TRAINING_DIGITS), "test": (TRAINING_DIGITS, None)}
    start, stop = ends[one_of("split", split, ends)]
    pixels = _shipped("digits.csv.gz", ",")[:, :-1]  # the last column is what digit it is
    return torch.from_numpy(pixels[start:stop]).to(device=available_device(device), dtype=dtype).view(-1, 8, 8) / 16


def _shipped(name: str, delimiter: str | None = None) -> np.ndarray:
    """A table that ships inside scikit-learn, from its file: importing the loaders takes a second of every process."""
    package = util.find_spec("sklearn")
    path = Path(package.origin).parent / "datasets" / "data" / name if package and package.origin else None
    if path is None or not path.is_file():
        raise ImportError(f"{name} is not there, a table that ships inside scikit-learn; install scikit-learn again.")
    return np.loadtxt(path, delimiter=delimiter)


def patches(
    size: int = 32, split: str = "train", dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """Colour patches of the two photographs that ship inside scikit-learn, cut on a fixed grid.

    The rightmost 128 columns of each photograph (427 x 640) are for testing, the others for training: no pixel is in
    both. Neighbouring patches overlap; the grid's step is a quarter of `size`, 8, 16, 32 or 64 pixels.

    Returns:
        (N, 3, size, size) in [0, 1] of the split "train" or "test"; N is 106260 and 25620 at size 8, 25750 and 5974
        at 16, 6100 and 1300 at 32, 1334 and 230 at 64.
    """
    one_of("size", size, (8, 16, 32, 64))
    one_of("split", split, ("train", "test"))
    from sklearn.datasets import load_sample_images

    photographs = torch.from_numpy(np.stack(load_sample_images().images))
    border = photographs.shape[2] - TEST_COLUMNS
    area = photographs[:, :, :border] if split == "train" else photographs[:, :, border:]
    windows = area.unfold(1, size, size // 4).unfold(2, size, size // 4)
    return windows.flatten(0, 2).to(device=available_device(device), dtype=dtype) / 255


def diabetes(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """The diabetes study that ships inside scikit-learn (Efron et al., 2004), for regression.

    Returns:
        (442, 11), each column with mean 0 and variance 1; the last is the response.
    """
    features, response = _shipped("diabetes_data_raw.csv.gz"), _shipped("diabetes_target.csv.gz")
    table = torch.column_stack([torch.from_numpy(features), torch.from_numpy(response)])
    table = (table - table.mean(0)) / table.std(0, correction=0)
    return table.to(device=available_device(device), dtype=dtype)


def linear_gaussian(
    n: int = 256,
    features: int = 6,
    latents: int = 2,
    noise_variance: float = 0.5,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Data of a known linear VAE with D latents and noise variance s: x = W z + noise, W standard normal, centred.

    Returns:
        (n, d), d the features, with mean 0; the generator of W, z and the noise is on the CPU.
    """
    n, features = positive_integer("n", n), positive_integer("features", features)
    latents, scale = positive_integer("latents", latents), within("noise_variance", noise_variance, 0) ** 0.5

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")

    x = normal(n, latents) @ normal(latents, features) + scale * normal(n, features)
    return (x - x.mean(0)).to(device=available_device(device), dtype=dtype)
