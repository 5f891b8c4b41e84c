"""Refusals of bad input."""

import math
import re

import numpy as np
import pytest
import torch

from tests.cases import ABSENT_DEVICE
from vaebench.support.checks import available_device, one_of, positive_integer, within


@pytest.mark.parametrize("value", [1, 7, np.int64(7), torch.tensor(7)], ids=repr)
def test_integers_are_taken(value):
    result = positive_integer("samples", value)
    assert result == value and type(result) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True, math.nan, torch.tensor(1.0), [1]], ids=repr)
def test_what_is_no_positive_integer_is_refused(value):
    with pytest.raises(ValueError, match=r"^samples must be an integer of at least 1, got .*\.$"):
        positive_integer("samples", value)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5)], ids=repr)
def test_numbers_in_the_range_are_taken(value):
    result = within("alpha", value, 0, 1)
    assert result == value and type(result) is float


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, math.nan, math.inf, -math.inf], ids=repr)
def test_numbers_outside_a_closed_range_are_refused(value):
    with pytest.raises(ValueError, match=r"^alpha must be in \[0, 1\], got .*\.$"):
        within("alpha", value, 0, 1)


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf], ids=repr)
def test_numbers_outside_a_half_line_are_refused(value):
    with pytest.raises(ValueError, match=r"^beta must be finite and at least 0, got .*\.$"):
        within("beta", value, 0)


@pytest.mark.parametrize("value", ["0.5", None, [0.5], 1j], ids=repr)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^alpha must be in \[0, 1\], got .*\.$"):
        within("alpha", value, 0, 1)


@pytest.mark.parametrize("value", ["cpu", torch.device("cpu")], ids=repr)
def test_a_device_that_is_there_is_returned(value):
    assert available_device(value) == torch.device("cpu")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(
        ValueError, match=rf"^Device '{ABSENT_DEVICE}' is not there: torch sees \d+ CUDA device\(s\); use"
    ):
        available_device(ABSENT_DEVICE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_cuda_without_a_number_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="Device 'cuda' is not there: torch sees 0"):
        available_device("cuda")


@pytest.mark.parametrize("value", ["gpu", "", "cuda:x"])
def test_what_is_no_device_is_refused(value):
    with pytest.raises(ValueError, match="is not a device; use 'cpu', 'cuda' or 'cuda:N'"):
        available_device(value)


@pytest.mark.parametrize("value", ["train", "test"])
def test_an_option_is_taken(value):
    assert one_of("split", value, ("train", "test")) is value


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ("valid", {"train": 0, "test": 1}, "split must be 'train' or 'test', got 'valid'."),
        (48, (16, 32, 64), "split must be 16, 32 or 64, got 48."),
        (["a"], ("a", "b"), "split must be 'a' or 'b', got ['a']."),
    ],
    ids=str,
)
def test_what_is_no_option_is_refused(value, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        one_of("split", value, options)
