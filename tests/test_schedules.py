"""Schedules: the formulas, counted from step 1."""

import math

import pytest

from vaebench.training.schedules import Schedule, constant, inverse_sqrt, polynomial

STEPS = (1, 2, 3, 10, 1000, 10**9)


@pytest.mark.parametrize("step", STEPS)
def test_constant(step):
    assert constant(0.3)(step) == 0.3


@pytest.mark.parametrize("step", STEPS)
def test_inverse_sqrt(step):
    assert inverse_sqrt(0.3)(step) == pytest.approx(0.3 / math.sqrt(step), rel=1e-15)


@pytest.mark.parametrize("exponent", [0.0, 0.25, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("step", STEPS)
def test_polynomial(step, exponent):
    assert polynomial(0.3, exponent)(step) == pytest.approx(0.3 / step**exponent, rel=1e-15)


def test_schedules_compare_by_value():
    assert inverse_sqrt(0.3) == polynomial(0.3, 0.5) == Schedule(0.3, 0.5) != constant(0.3)


@pytest.mark.parametrize("step", [0, -1, 1.5, True])
def test_a_step_below_one_or_not_an_integer_is_refused(step):
    with pytest.raises(ValueError, match="step must be an integer of at least 1, got"):
        constant(0.3)(step)


@pytest.mark.parametrize("scale", [0, 0.0, -1, math.nan, math.inf])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale must be (positive|finite and at least 0), got"):
        inverse_sqrt(scale)


@pytest.mark.parametrize("exponent", [-0.1, math.nan, math.inf])
def test_an_exponent_below_zero_or_not_finite_is_refused(exponent):
    with pytest.raises(ValueError, match="exponent must be finite and at least 0, got"):
        polynomial(0.3, exponent)
