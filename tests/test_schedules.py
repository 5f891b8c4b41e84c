"""Schedules: the formulas, counted from step 1."""

import math

import numpy as np
import pytest

from vaebench.training.schedules import Schedule, constant, inverse_sqrt, per_epoch, polynomial

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


def test_within_an_epoch_the_step_size_stays_and_epochs_are_counted_from_one():
    schedule = per_epoch(0.6, 3)
    assert [schedule(step) for step in (1, 2, 3)] == [0.6] * 3
    assert [schedule(step) for step in (4, 6)] == pytest.approx([0.6 / math.sqrt(2)] * 2, rel=1e-15)
    assert schedule(3 * 99 + 1) == schedule(300) == pytest.approx(0.06, rel=1e-15)
    assert schedule(301) == pytest.approx(0.6 / math.sqrt(101), rel=1e-15)


@pytest.mark.parametrize("schedule", [inverse_sqrt(0.3), per_epoch(0.3, 7), polynomial(0.2, 0.75), constant(1.0)])
def test_the_first_step_sizes_are_those_asked_for_one_by_one(schedule):
    np.testing.assert_allclose(schedule.first(30), [schedule(step) for step in range(1, 31)], rtol=1e-15)


def test_only_steps_c_over_sqrt_n_are_the_theorems():
    assert inverse_sqrt(0.3).is_inverse_sqrt and per_epoch(0.3, 1).is_inverse_sqrt
    assert not any(one.is_inverse_sqrt for one in (per_epoch(0.3, 2), constant(0.3), polynomial(0.3, 0.75)))


@pytest.mark.parametrize("period", [0, -2, 1.5, True])
def test_a_period_that_is_no_positive_integer_is_refused(period):
    with pytest.raises(ValueError, match="period must be an integer of at least 1, got"):
        per_epoch(0.3, period)
