"""Soft clipping against its defining formula in extended precision, and its derivatives."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jvp, vmap

from tests.cases import NEEDS_COMPILER
from vaebench.measures.cost import saved_bytes
from vaebench.models.activations import SoftClip, relu, soft_clip, tanh
from vaebench.support.internals import compile_flat

FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own
RANGES = ((0.0, 50.0), (-50.0, 50.0), (-20.0, 20.0))
SHARPNESS = (1.0, 2.0, 5.0, 10.0)
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
SETTINGS = [(s, *limits) for s in SHARPNESS for limits in RANGES]
NARROW = [(0.5, -1.0, 1.0), (3.0, -0.2, 0.1)]
MARGINS = (0.0, 1e-6, 1e-3, 0.02, 0.3, 0.5, 1.0, 3.0, 7.0, 20.0, 60.0, 100.0)
ROUNDINGS = {torch.float64: 1.5, torch.float32: 1.5, torch.bfloat16: 0.502}
"""Errors allowed, in roundings of the output plus float32's of the input carried to it (float64's in float64).
bfloat16 computes in float32, so it is correctly rounded but for near ties."""


def points(low: float, high: float, dtype: torch.dtype) -> Tensor:
    """Both limits, zero and the middle, with margins; |x| up to 1e4; random ones around the lower limit."""
    near = [c + sign * m for c in (low, 0.0, (low + high) / 2, high) for m in MARGINS for sign in (1, -1)]
    spread = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    everywhere = torch.linspace(-1e4, 1e4, 41, dtype=torch.float64)
    return torch.cat([torch.tensor(near, dtype=torch.float64), low + 5 * spread, everywhere]).to(dtype).unique()


def formula(x: float, sharpness: float, low: float, high: float) -> mpmath.mpf:
    """The definition; 400 digits hold e^{-s|x|} down to the smallest double, and 1 + it."""
    with mpmath.workdps(400):
        above_low = 1 + mpmath.exp(sharpness * (mpmath.mpf(x) - low))
        above_high = 1 + mpmath.exp(sharpness * (mpmath.mpf(x) - high))
        return mpmath.log(above_low / above_high) / sharpness + low


def slope(x: float, sharpness: float, low: float, high: float) -> float:
    """Its derivative, (1 - e^{-s(high - low)}) sigmoid(s(x - low)) sigmoid(s(high - x)), where it is not 0."""
    rising, falling = sharpness * (x - low), sharpness * (high - x)
    scale = -math.expm1(-sharpness * (high - low))
    return scale * math.exp(-sum(math.log1p(math.exp(-abs(t))) + max(-t, 0) for t in (rising, falling)))


def unit(value: mpmath.mpf, dtype: torch.dtype) -> mpmath.mpf:
    """One rounding (ulp) of a value."""
    info = torch.finfo(dtype)
    exponent = mpmath.frexp(value)[1] - 1 if value else -10_000
    return info.eps * max(mpmath.mpf(2) ** exponent, mpmath.mpf(info.tiny))


def derivatives(clip: SoftClip, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(clip(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return first.detach(), second


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_value_is_the_formula_to_rounding(setting, dtype):
    _, low, high = setting
    eps = min(torch.finfo(kind).eps for kind in (dtype, torch.float32))
    x = points(low, high, dtype)
    for point, value in zip(x.tolist(), SoftClip(*setting)(x).tolist(), strict=True):
        exact, rate = formula(point, *setting), slope(point, *setting)
        carried = rate * eps * (abs(point) + (1 - rate) * (high - low))
        assert abs(value - exact) <= ROUNDINGS[dtype] * (unit(exact, dtype) + carried), point


@pytest.mark.parametrize("setting", NARROW, ids=str)
def test_a_range_narrower_than_its_corners_is_exact_to_roundings_of_its_limits(setting):
    x = points(*setting[1:], torch.float64)
    exact = torch.tensor([float(formula(point, *setting)) for point in x.tolist()], dtype=x.dtype)
    torch.testing.assert_close(SoftClip(*setting)(x), exact, rtol=0, atol=4e-16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("setting", SETTINGS + NARROW, ids=str)
def test_the_largest_finite_inputs_reach_the_limits(setting, dtype):
    _, low, high = setting
    largest = torch.finfo(dtype).max
    x = torch.tensor([-largest, -1e30, 1e30, largest], dtype=torch.float64).to(dtype)
    assert torch.equal(SoftClip(*setting)(x), torch.tensor([low, low, high, high], dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_derivatives_are_finite_at_any_finite_input(setting, dtype):
    x = torch.cat([torch.tensor([1.0, -1.0], dtype=dtype) * torch.finfo(dtype).max, points(*setting[1:], dtype)])
    assert all(value.isfinite().all() for value in derivatives(SoftClip(*setting), x))


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_a_small_mean_survives_in_bfloat16(sharpness):
    x = torch.tensor([0.02, -0.02, 1e-30], dtype=torch.bfloat16)
    assert torch.equal(SoftClip(sharpness, -50, 50)(x), x)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("setting", [*SETTINGS[:6], *NARROW], ids=str)
def test_derivatives_are_those_of_the_formula(setting, order):
    sharpness, low, high = setting
    x = torch.tensor([c + m for c in (low, high) for m in (-3.0, -0.3, 0.0, 0.02, 2.0)], dtype=torch.float64)
    actual = derivatives(SoftClip(*setting), x)[order - 1]
    exact = [float(mpmath.diff(lambda t: formula(t, *setting), point, order)) for point in x.tolist()]
    torch.testing.assert_close(actual / sharpness, torch.tensor(exact, dtype=x.dtype) / sharpness, rtol=0, atol=4e-16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_derivatives_keep_the_precision_of_their_dtype(setting, dtype):
    x, clip = points(*setting[1:], dtype), SoftClip(*setting)
    (first, second), (exact_first, exact_second) = derivatives(clip, x), derivatives(clip, x.double())
    assert (first - exact_first).abs().max() <= torch.finfo(dtype).eps
    assert (second - exact_second).abs().max() <= setting[0] * torch.finfo(dtype).eps


@FORWARD_MODE
@pytest.mark.parametrize("setting", [(1.0, 0.0, 50.0), *NARROW], ids=str)
def test_autograd_agrees_with_finite_differences(setting):
    clip = SoftClip(*setting)
    x = torch.tensor([-2.0, -0.2, 0.0, 0.1, 0.7, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(clip, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(clip, x, check_fwd_over_rev=True)


@FORWARD_MODE
@pytest.mark.parametrize("setting", SETTINGS[:3], ids=str)
def test_forward_mode_equals_reverse_mode(setting):
    clip, x = SoftClip(*setting), points(*setting[1:], torch.float64)
    _, tangent = jvp(clip, (x,), (torch.ones_like(x),))
    assert torch.equal(tangent, derivatives(clip, x)[0])


@pytest.mark.parametrize("function", [lambda clip: clip, grad, lambda clip: grad(grad(clip))], ids=["f", "f'", "f''"])
def test_vmap_equals_a_loop(function):
    one = function(SoftClip(2.0, -20.0, 20.0))
    x = points(-20.0, 20.0, torch.float64)
    torch.testing.assert_close(vmap(one)(x), torch.stack([one(point) for point in x]), rtol=0, atol=1e-15)


@pytest.mark.parametrize("setting", SETTINGS + NARROW, ids=str)
def test_the_slope_keeps_its_bounds(setting):
    sharpness, low, high = setting
    x = torch.linspace(low - 60 / sharpness, high + 60 / sharpness, 4001, dtype=torch.float64)
    first, second = derivatives(SoftClip(*setting), x)
    steepest = math.tanh(sharpness * (high - low) / 4)
    assert (first > 0).all()
    assert float(first.max()) == pytest.approx(steepest, rel=1e-15)  # reached, in the middle
    assert float(second.abs().max()) <= sharpness / 4


@given(
    x=st.floats(allow_nan=False, allow_infinity=False),
    y=st.floats(allow_nan=False, allow_infinity=False),
    sharpness=st.floats(0.01, 100),
    low=st.floats(-100, 100),
    width=st.floats(0.01, 200),
)
def test_any_clip_is_monotone_into_its_range(x, y, sharpness, low, width):
    ends = SoftClip(sharpness, low, low + width)(torch.tensor(sorted((x, y)), dtype=torch.float64))
    rounding = 2 * torch.finfo(torch.float64).eps * (abs(low) + width)
    assert low <= float(ends[0]) <= float(ends[1]) + rounding
    assert float(ends[1]) <= low + width


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_only_the_input_is_saved(dtype):
    x = torch.ones(100, dtype=dtype, requires_grad=True)
    assert saved_bytes(lambda: SoftClip(1.0, 0.0, 50.0)(2 * x)) == x.nbytes


def test_the_input_is_left_alone():
    x = points(0.0, 50.0, torch.float64)
    before = x.clone()
    SoftClip(1.0, 0.0, 50.0)(x)
    assert torch.equal(x, before)


def test_infinities_and_nan_are_not_hidden():
    x = torch.tensor([-math.inf, math.inf, math.nan])
    low, high, nothing = SoftClip(1.0, -20.0, 20.0)(x).tolist()
    assert (low, high) == (-20, 20) and math.isnan(nothing)


@pytest.mark.parametrize("setting", [(0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (1.0, 2.0, 1.0)], ids=str)
def test_an_empty_range_is_refused(setting):
    with pytest.raises(ValueError, match="SoftClip needs sharpness > 0 and low < high, got sharpness"):
        SoftClip(*setting)


@pytest.mark.parametrize("setting", [(-1.0, 0.0, 1.0), (math.nan, 0.0, 1.0), (1.0, -math.inf, 1.0)], ids=str)
def test_settings_that_are_not_finite_are_refused(setting):
    with pytest.raises(ValueError, match=r"must be finite and at least|must be finite"):
        SoftClip(*setting)


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_the_papers_ranges(sharpness):
    chosen = [(clip.sharpness, clip.low, clip.high) for clip in soft_clip(sharpness)]
    assert chosen == [(sharpness, 0, 50), (sharpness, -50, 50), (sharpness, -20, 20)]


@pytest.mark.parametrize(("activations", "hidden"), [(relu, torch.relu), (tanh, torch.tanh)])
def test_plain_heads_are_the_identity(activations, hidden):
    x = torch.linspace(-3, 3, 7)
    chosen = activations()
    assert torch.equal(chosen.hidden(x), hidden(x))
    assert torch.equal(chosen.mean(x), x) and torch.equal(chosen.log_variance(x), x)


def test_the_repr_names_the_settings():
    assert repr(SoftClip(1, 0, 50)) == "SoftClip(sharpness=1, low=0, high=50)"


def value_slope_bend(setting, x):
    clip, slope = SoftClip(*setting), grad(SoftClip(*setting))
    return [vmap(clip)(x), vmap(slope)(x), vmap(grad(slope))(x)]


@pytest.fixture(scope="module")
def compiled():
    """All three of every setting, in float32 and compiled at once, for that takes hardly longer than one."""
    inputs = [points(*setting[1:], torch.float32) for setting in SETTINGS]

    def everything(*tensors):
        return [one for setting, x in zip(SETTINGS, tensors, strict=True) for one in value_slope_bend(setting, x)]

    found = compile_flat(everything, inputs)(*inputs)
    return {setting: (x, found[3 * i : 3 * i + 3]) for i, (setting, x) in enumerate(zip(SETTINGS, inputs, strict=True))}


@NEEDS_COMPILER
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_compiled_it_is_the_formula_too(setting, compiled):
    x, found = compiled[setting]
    right = value_slope_bend(setting, x.double())
    for name, actual, expected in zip(("value", "slope", "bend"), found, right, strict=True):
        atol = 1e-7 * setting[0] if name == "bend" else 1e-30
        torch.testing.assert_close(
            actual.double(), expected, rtol=2e-4 if name == "slope" else 5e-5, atol=atol, msg=name
        )
