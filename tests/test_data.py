"""Embedded data sets: shapes, ranges, splits without a shared pixel, and refusals."""

import math
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from torch import Tensor

from tests.cases import ABSENT_DEVICE
from vaebench.data import DATA, TEST_COLUMNS, diabetes, digits, linear_gaussian, patches

SIZES = {
    "digits": (1797, 8, 8),
    "patches": (6100, 3, 32, 32),
    "diabetes": (442, 11),
    "linear_gaussian": (256, 6),
}
FROM_FILES = {"mnist", "cifar100", "celeba"}  # tests/test_data_files.py


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def load(name: str, **options) -> Tensor:
    return DATA[name](**options, **({"generator": seeded()} if name == "linear_gaussian" else {}))


def test_every_data_set_is_tested():
    assert set(DATA) == set(SIZES) | FROM_FILES


@pytest.mark.parametrize("name", SIZES)
def test_shapes(name):
    assert load(name).shape == SIZES[name]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_the_dtype_changes_nothing_but_rounding(name, dtype):
    narrow, wide = load(name, dtype=dtype), load(name, dtype=torch.float64)
    assert narrow.dtype == dtype
    torch.testing.assert_close(narrow.double(), wide, rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("name", SIZES)
def test_the_default_is_float32_on_the_cpu(name):
    assert (load(name).dtype, load(name).device.type) == (torch.float32, "cpu")


@pytest.mark.parametrize("name", SIZES)
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="is not there: torch sees"):
        load(name, device=ABSENT_DEVICE)


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_images_fill_the_unit_interval(name):
    x = load(name)
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)


def test_digits_are_those_of_scikit_learn():
    expected = torch.from_numpy(sklearn.datasets.load_digits().images) / 16
    assert torch.equal(digits(dtype=torch.float64), expected)


def test_digits_are_split_without_loss_or_overlap():
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1500, 297)
    assert torch.equal(torch.cat([train, test]), digits("all"))
    assert torch.equal(digits(), digits("all"))


def test_another_split_of_the_digits_is_refused():
    with pytest.raises(ValueError, match="split must be 'all', 'train' or 'test', got 'valid'"):
        digits("valid")


@pytest.mark.parametrize(
    ("size", "split", "rows"), [(32, "train", 6100), (32, "test", 1300), (64, "train", 1334), (64, "test", 230)]
)
def test_number_of_patches(size, split, rows):
    photographs, step, columns = 2, size // 4, 512 if split == "train" else TEST_COLUMNS
    assert photographs * ((427 - size) // step + 1) * ((columns - size) // step + 1) == rows
    assert patches(size, split).shape == (rows, 3, size, size)


@pytest.fixture
def coordinates(monkeypatch) -> list[np.ndarray]:
    """Photographs whose three channels are photograph, row and column: a patch then says where it is from."""
    rows, columns = np.indices((427, 640))
    places = [np.stack([np.full_like(rows, photograph), rows, columns], -1) for photograph in range(2)]
    images = type("Bunch", (), {"images": places})
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: images)
    return places


def places(size: int, split: str) -> Tensor:
    """(N, 3, size, size): photograph, row and column of every pixel."""
    return (patches(size, split, dtype=torch.float64) * 255).round().long()


@pytest.mark.parametrize("size", [32, 64])
def test_no_pixel_is_in_both_splits(size, coordinates):
    seen = {split: torch.zeros(2, 427, 640, dtype=torch.bool) for split in ("train", "test")}
    for split, mask in seen.items():
        mask[places(size, split).unbind(1)] = True
        assert mask.any()
    assert not (seen["train"] & seen["test"]).any()


@pytest.mark.parametrize("size", [32, 64])
def test_training_and_test_columns_are_the_documented_ones(size, coordinates):
    columns = {split: places(size, split)[:, 2] for split in ("train", "test")}
    assert (int(columns["train"].min()), int(columns["train"].max())) == (0, 511)
    assert (int(columns["test"].min()), int(columns["test"].max())) == (512, 639)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("size", [32, 64])
def test_patches_are_unbroken_windows_on_a_grid_of_a_quarter(size, split, coordinates):
    where = places(size, split)
    corner = where[:, :, :1, :1]
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    assert torch.equal(where - corner, torch.stack([torch.zeros_like(rows), rows, columns]).expand_as(where))
    assert not (corner[:, 1:].remainder(size // 4)).any()


@pytest.mark.parametrize("split", ["train", "test"])
def test_patches_come_from_both_photographs_and_never_twice(split, coordinates):
    corners = places(32, split)[:, :, 0, 0]
    assert len(corners.unique(dim=0)) == len(corners)
    assert corners[:, 0].bincount().tolist() == [len(corners) // 2] * 2


def test_diabetes_is_standardised_and_ends_with_the_response():
    x = diabetes(dtype=torch.float64)
    features, target = sklearn.datasets.load_diabetes(return_X_y=True, scaled=False)
    response, columns = torch.from_numpy(target), torch.from_numpy(features)
    assert torch.equal(x[:, :-1], (columns - columns.mean(0)) / columns.std(0, correction=0))
    torch.testing.assert_close(x.mean(0), torch.zeros(11, dtype=x.dtype), rtol=0, atol=1e-13)
    torch.testing.assert_close(x.square().mean(0), torch.ones(11, dtype=x.dtype))
    assert float(torch.corrcoef(torch.stack([x[:, -1], response]))[0, 1]) == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_linear_gaussian_is_centred(n):
    x = linear_gaussian(n=n, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(x.mean(0), torch.zeros(6, dtype=x.dtype), rtol=0, atol=1e-14)


def test_linear_gaussian_without_noise_has_the_rank_of_its_latents():
    x = linear_gaussian(n=50, features=6, latents=2, noise_variance=0, generator=seeded(), dtype=torch.float64)
    assert int(torch.linalg.matrix_rank(x)) == 2


def test_linear_gaussian_has_the_noise_variance_given():
    """The residual variance off the two principal directions, within 5 standard errors (false alarm 1e-6)."""
    n, features, latents, variance = 4000, 6, 2, 0.5
    x = linear_gaussian(n, features, latents, variance, seeded(), torch.float64)
    freedom = (features - latents) * (n - 1 - latents)
    residual = float(torch.linalg.svdvals(x)[latents:].square().sum()) / freedom
    assert abs(residual / variance - 1) < 5 * (2 / freedom) ** 0.5


def test_one_seed_gives_one_sample():
    first, second, other = (linear_gaussian(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("name", SIZES)
def test_the_global_generator_is_left_alone(name):
    before = torch.get_rng_state()
    load(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_read_or_loaded_at_import_and_tables_are_read_without_their_loaders():
    heavy = {"sklearn", "pandas", "PIL", "pooch", "requests", "platformdirs", "filelock"}
    loaded = f"print(sorted({heavy} & set(sys.modules)))"
    code = f"import sys, vaebench.data as d; {loaded}; d.digits(); d.diabetes(); {loaded}"
    root = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize("make", [digits, diabetes])
@pytest.mark.parametrize("there", [False, True], ids=["no scikit-learn", "one without the tables"])
def test_tables_that_are_not_there_are_one_sentence(make, there, tmp_path, monkeypatch):
    package = ModuleSpec("sklearn", None, origin=str(tmp_path / "__init__.py")) if there else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: package)
    with pytest.raises(ImportError, match=r"csv.gz is not there, .*; install scikit-learn again\.$"):
        make()


@pytest.mark.parametrize("size", [48, 0, "32"])
def test_another_patch_size_is_refused(size):
    with pytest.raises(ValueError, match="size must be 8, 16, 32 or 64, got"):
        patches(size)


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'validation'"):
        patches(32, "validation")


@pytest.mark.parametrize("name", ["n", "features", "latents"])
@pytest.mark.parametrize("value", [0, -3, 1.5])
def test_sizes_below_one_or_not_integers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {value}"):
        linear_gaussian(**{name: value})


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_noise_variance_below_zero_or_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="noise_variance must be finite and at least 0, got"):
        linear_gaussian(noise_variance=value)
