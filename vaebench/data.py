"""Data sets, as float tensors (N, *event). The ones here are embedded or simulated: nothing downloads."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaebench.checks import available_device, positive_integer, within
from vaebench.registry import Registry

DATA: Registry[Callable[..., Tensor]] = Registry("data set", "vaebench.data")
TEST_COLUMNS = 128


@DATA.register
def digits(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """The 1,797 handwritten 8x8 digits that ship inside scikit-learn (Alpaydin & Kaynak, 1998).

    Args:
        dtype: of the result.
        device: of the result.

    Returns:
        (1797, 8, 8) in [0, 1].
    """
    from sklearn.datasets import load_digits

    pixels, _ = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).to(device=available_device(device), dtype=dtype).view(-1, 8, 8) / 16


@DATA.register
def patches(
    size: int = 32,
    split: str = "train",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Colour patches of the two photographs that ship inside scikit-learn, cut on a fixed grid.

    The rightmost 128 columns of each photograph (427 x 640) are for testing, the others for training: no
    pixel is in both. Neighbouring patches overlap; the grid's step is a quarter of `size`.

    Args:
        size: side of a patch in pixels, 8, 16, 32 or 64.
        split: "train" or "test".
        dtype: of the result.
        device: of the result.

    Returns:
        (N, 3, size, size) in [0, 1]; N is 106260 and 25620 at size 8, 25750 and 5974 at 16, 6100 and 1300 at 32,
        1334 and 230 at 64.

    Raises:
        ValueError: if size or split is another.
    """
    if size not in (8, 16, 32, 64):
        raise ValueError(f"size must be 8, 16, 32 or 64, got {size!r}.")
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    from sklearn.datasets import load_sample_images

    photographs = torch.from_numpy(np.stack(load_sample_images().images))
    border = photographs.shape[2] - TEST_COLUMNS
    area = photographs[:, :, :border] if split == "train" else photographs[:, :, border:]
    windows = area.unfold(1, size, size // 4).unfold(2, size, size // 4)
    return windows.flatten(0, 2).to(device=available_device(device), dtype=dtype) / 255


@DATA.register
def diabetes(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """The diabetes study that ships inside scikit-learn (Efron et al., 2004), for regression.

    Args:
        dtype: of the result.
        device: of the result.

    Returns:
        (442, 11), each column with mean 0 and variance 1; the last is the response.
    """
    from sklearn.datasets import load_diabetes

    features, response = load_diabetes(return_X_y=True, scaled=False)
    table = torch.column_stack([torch.from_numpy(features), torch.from_numpy(response)])
    table = (table - table.mean(0)) / table.std(0, correction=0)
    return table.to(device=available_device(device), dtype=dtype)


@DATA.register
def linear_gaussian(
    n: int = 256,
    features: int = 6,
    latents: int = 2,
    noise_variance: float = 0.5,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Data of a known linear VAE: x = W z + noise, W standard normal, centred.

    Args:
        n: number of points.
        features: d.
        latents: D, the columns of W.
        noise_variance: s.
        generator: source of W, z and the noise, on the CPU.
        dtype: of the result.
        device: of the result.

    Returns:
        (n, d), with mean 0.
    """
    n, features = positive_integer("n", n), positive_integer("features", features)
    latents, scale = positive_integer("latents", latents), within("noise_variance", noise_variance, 0) ** 0.5

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = normal(n, latents) @ normal(latents, features) + scale * normal(n, features)
    return (x - x.mean(0)).to(device=available_device(device), dtype=dtype)
