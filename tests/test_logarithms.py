"""log1p is torch's, in the dtype given, compiled too; near zero every digit counts."""

import pytest
import torch

from tests.cases import NEEDS_COMPILER
from vaebench.logarithms import log1p

SMALL = torch.logspace(-44, -1, 200, dtype=torch.float64)
POINTS = torch.cat([torch.linspace(-0.5, 1, 4001, dtype=torch.float64), SMALL, -SMALL, torch.zeros(1)])


@pytest.mark.parametrize(
    "function",
    [log1p, pytest.param(torch.compile(log1p, dynamic=False), marks=NEEDS_COMPILER)],
    ids=["eager", "compiled"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_is_the_logarithm_to_roundings(dtype, function):
    u = POINTS.to(dtype)
    exact, found = torch.log1p(u.double()), function(u).double()
    limits = torch.finfo(dtype)
    assert ((found - exact).abs() <= 4 * limits.eps * exact.abs() + limits.tiny).all()


@NEEDS_COMPILER
def test_too_short_a_series_would_be_noticed(monkeypatch):
    monkeypatch.setattr("vaebench.logarithms.TERMS", 5)
    u = POINTS.float()
    found = torch.compile(lambda u: log1p(u), dynamic=False)(u).double()
    assert (found - torch.log1p(POINTS)).abs().max() > 1e-7
