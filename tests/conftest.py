"""What all tests share: the tests own torch's threads, and hypothesis tries the same examples every time."""

import gc

import pytest
import torch
from hypothesis import settings
from torch.func import grad

from benchmarks.harness.pinned import pinned

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def pytest_collection_finish():
    """What torch loads is not looked through for garbage while tests run, the rest seldom: a tenth of their time."""
    grad(torch.sum)(torch.zeros(()))  # the first gradient of torch.func loads a thousand modules
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture
def scalar_code():
    """Inductor makes loops without vectors, in half of its time: for tests of what is computed, not of rounding."""
    from torch._inductor import config

    with config.patch({"cpp.simdlen": 1}):
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info):
    """Beside its timings, pytest-benchmark's file has what was pinned while they were taken."""
    machine_info["pinned"] = pinned()
