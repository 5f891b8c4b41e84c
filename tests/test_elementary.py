"""Elementary functions for compiled code are torch's to roundings, compiled or not, and so are their derivatives."""

import pytest
import torch
from torch.func import grad, vmap

from tests.cases import NEEDS_COMPILER
from vaebench.models.elementary import TANH, expanded, log1p, tanh

SMALL = torch.logspace(-44, -1, 200, dtype=torch.float64)
POINTS = torch.cat([torch.linspace(-0.5, 1, 4001, dtype=torch.float64), SMALL, -SMALL, torch.zeros(1)])
HOW = [lambda function: function, pytest.param(lambda f: torch.compile(f, dynamic=False), marks=NEEDS_COMPILER)]


def off(found: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> float:
    """The largest error in roundings of the value."""
    limits = torch.finfo(dtype)
    return float(((found.double() - exact).abs() / (limits.eps * exact.abs() + limits.tiny)).max())


@pytest.mark.parametrize("how", HOW, ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_logarithm_is_torchs_to_roundings(dtype, how):
    u = POINTS.to(dtype)
    assert off(how(log1p)(u), torch.log1p(u.double()), dtype) <= 4


def test_the_last_terms_of_the_series_matter(monkeypatch):
    monkeypatch.setattr("vaebench.models.elementary.TERMS", 5)
    u = POINTS.float()
    assert off(log1p(u), torch.log1p(u.double()), torch.float32) > 10


WIDE = torch.cat([torch.linspace(-12, 12, 48_001), SMALL.float(), -SMALL.float(), torch.tensor([0.0, 1e30, -1e30])])


@pytest.mark.parametrize("how", HOW, ids=["eager", "compiled"])
def test_the_tangent_is_torchs_to_roundings(how):
    found = how(tanh)(WIDE)
    assert off(found, torch.tanh(WIDE.double()), torch.float32) <= 2 and found.abs().max() == 1
    assert tanh(torch.tensor(torch.nan)).isnan() and tanh(torch.tensor(torch.inf)) == 1


@pytest.mark.parametrize(("name", "value"), [("TANH", TANH[:-1]), ("NEAR", 0.5), ("NEAR", 0.01)])
def test_the_last_term_of_the_tangents_series_and_where_it_ends_matter(name, value, monkeypatch):
    monkeypatch.setattr(f"vaebench.models.elementary.{name}", value)
    assert off(tanh(WIDE), torch.tanh(WIDE.double()), torch.float32) > 5


def test_an_expansion_has_the_value_and_derivatives_it_was_given():
    sine = lambda x: expanded(x, x.detach().sin(), x.detach().cos(), -x.detach().sin())
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    everything = lambda f: (vmap(f)(x), vmap(grad(f))(x), vmap(grad(grad(f)))(x))
    torch.testing.assert_close(everything(sine), everything(torch.sin))
