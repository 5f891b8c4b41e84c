"""Data sets: tensors (N, *event).

Embedded or simulated ones are floats. Those of files are uint8, a byte a pixel, whose values over 255 are the pixels.
"""

from collections.abc import Callable

from torch import Tensor

from vaebench.data.decoded import celeba
from vaebench.data.embedded import TEST_COLUMNS, diabetes, digits, linear_gaussian, patches
from vaebench.data.fetched import cifar100, mnist
from vaebench.data.files import DamagedFileError, data_directory
from vaebench.support.registry import Registry

__all__ = [
    "DATA",
    "TEST_COLUMNS",
    "DamagedFileError",
    "celeba",
    "cifar100",
    "data_directory",
    "diabetes",
    "digits",
    "linear_gaussian",
    "mnist",
    "patches",
]

DATA: Registry[Callable[..., Tensor]] = Registry("data set", "vaebench.data")
for data_set in (digits, patches, diabetes, linear_gaussian, mnist, cifar100, celeba):
    DATA.register(data_set)
