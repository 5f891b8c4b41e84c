"""One shared problem with a known answer: a small linear VAE."""

from typing import NamedTuple

import pytest
import torch

from vaebench.theory.linear import LinearParameters


class Bed(NamedTuple):
    data: torch.Tensor
    scatter: torch.Tensor
    params: LinearParameters
    noise_variance: float
    beta: float


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20250501)


@pytest.fixture
def bed():
    """Away from the optimum: d = 6, q = 2, N = 256, s = 0.5: 26 parameters; beta != 1 so that it matters."""
    g = torch.Generator().manual_seed(7)
    mix = (
        torch.randn(6, 6, generator=g, dtype=torch.float64)
        * torch.tensor([1.5, 1.1, 0.7, 0.5, 0.4, 0.3]).double()
    )
    data = torch.randn(256, 6, generator=g, dtype=torch.float64) @ mix.mT
    data = data - data.mean(0)
    params = LinearParameters(
        torch.randn(6, 2, generator=g, dtype=torch.float64) * 0.4,
        torch.randn(2, 6, generator=g, dtype=torch.float64) * 0.3,
        torch.randn(2, generator=g, dtype=torch.float64) * 0.5 - 0.5,
    )
    return Bed(data, data.mT @ data / len(data), params, 0.5, 1.3)
