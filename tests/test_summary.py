"""Summaries: recorded numbers in, the theorem's average, its lines and its verdicts out; and faults that they see."""

import math

import numpy as np
import pandas as pd
import pytest

from vaebench.experiments.trajectory import Trajectory
from vaebench.report.summarising import nearness, rate_growth, summarise
from vaebench.support.statistics import Estimate
from vaebench.theory.envelopes import uniform_telescoped
from vaebench.training.records import geometric

STEPS, SEEDS, C = 5000, 8, 0.02
MARKS = np.array(geometric(STEPS))


def recorded(optimizer="adam", diverged=(), steps=STEPS, period=1, **columns) -> Trajectory:
    """Columns are functions of the step; seeds scatter around them by a few per cent."""
    random = np.random.default_rng(0)
    marks = np.array(geometric(steps))
    scatter = 1 + 0.05 * random.standard_normal((SEEDS, 1))
    rows = {"step": np.tile(marks, SEEDS), "seed": np.repeat(np.arange(SEEDS), len(marks))}
    rows |= {name: (scatter * [column(m) for m in marks]).ravel() for name, column in columns.items()}
    experiment = {"optimizer": {"name": optimizer}, "schedule": {"scale": C, "exponent": 0.5, "period": period}}
    metadata = {"experiment": experiment, "diverged": list(diverged), "cost": {"peak MB": 1.0}}
    return Trajectory(metadata, pd.DataFrame(rows))


def quadratic(fault: float = 1.0, curved: float = 1.0) -> Trajectory:
    """SGD on f(x) = L x^2 / 2 from x_0, with noise sigma^2, followed exactly: every column has a closed form."""
    smoothness, noise = 4.0, 3.0
    gamma = C / np.sqrt(np.arange(1, STEPS + 1))
    squares = [9.0]
    for step in gamma:
        squares.append((1 - step * smoothness) ** 2 * squares[-1] + step**2 * noise)
    second = np.array(squares)
    return recorded(
        "sgd",
        grad_sq=lambda m: fault * smoothness**2 * second[m],
        bound_train=lambda m: smoothness / 2 * second[m],
        grad_variance=lambda _: noise,
        top_curvature=lambda _: smoothness,
        gradient_curvature=lambda m: curved * smoothness * (smoothness**2 * second[m] + noise),
    )


def gates(trajectory: Trajectory) -> dict[str, bool]:
    return {verdict.gate: verdict.passed for verdict in summarise(trajectory).verdicts}


def test_the_running_average_of_a_power_is_that_of_every_step():
    summary = summarise(recorded(grad_sq=lambda m: (m + 1) ** -0.5))
    exact = np.cumsum(np.arange(1, STEPS + 1) ** -0.5) / np.arange(1, STEPS + 1)
    scatter = summary.gradient.mean[0]
    np.testing.assert_allclose(summary.running.mean, scatter * exact[MARKS[1:] - 1], rtol=2e-3)


def test_a_correct_run_keeps_the_bound_and_the_prediction():
    summary = summarise(quadratic())
    assert gates(quadratic()) == {"finite": True, "envelope": True, "prediction": True}
    assert summary.prediction is not None
    assert summary.envelope is not None
    assert summary.running.mean[-1] == pytest.approx(summary.prediction.value[-1], rel=0.01)
    assert summary.running.mean[-1] < summary.envelope.value[-1] < 2 * summary.running.mean[-1]


def test_the_envelope_is_the_telescoped_inequality():
    one = quadratic()
    summary = summarise(one)
    everywhere = one.frame[one.frame["seed"] == 0]
    gamma = C / np.sqrt(np.arange(1, STEPS + 1))

    def at_all(name):
        return np.interp(np.log1p(np.arange(STEPS + 1)), np.log1p(MARKS), everywhere[name])

    top = 1.5 * one.frame["top_curvature"].max()
    sides = uniform_telescoped(gamma, at_all("grad_sq")[:-1], at_all("bound_train"), top, at_all("grad_variance")[:-1])
    assert summary.envelope is not None
    running = np.cumsum(at_all("grad_sq")[:-1]) / np.arange(1, STEPS + 1)
    ratio = (running + sides.margin)[-1] / summary.envelope.value[-1]
    assert ratio == pytest.approx(1, abs=0.2)  # the seeds scatter


def test_gradients_twice_too_large_break_the_bound():
    assert gates(quadratic(fault=2.5))["envelope"] is False


@pytest.mark.parametrize("fault", [0.7, 1.4])
def test_gradients_that_are_off_miss_the_prediction(fault):
    assert gates(quadratic(fault=fault))["prediction"] is False


def test_a_decaying_gradient_keeps_the_rate():
    assert gates(recorded(grad_sq=lambda m: (m + 1) ** -0.5)) == {"finite": True, "rate": True}


def test_a_gradient_that_stops_decaying_breaks_the_rate():
    assert gates(recorded(grad_sq=lambda _: 1.0))["rate"] is False


def test_the_envelope_of_the_rate_has_its_shape():
    envelope = summarise(recorded(grad_sq=lambda m: (m + 1) ** -0.5)).envelope
    assert envelope is not None
    shape = (1 + np.log(envelope.step)) / np.sqrt(envelope.step)
    np.testing.assert_allclose(envelope.value / shape, envelope.value[0] / shape[0])


def outcome_of(ratio):
    return nearness(np.array(ratio)).outcome


def test_a_prediction_is_settled_or_said_not_to_be():
    """Five ratios, t(4): error 0.01 settles 1.00 and 1.05; 0.05 settles neither 1.05 nor 1.2; 0.02 refutes 1.4."""
    spread = np.array([-2, -1, 0, 1, 2]) / math.sqrt(2.5 / 5)  # a standard error of one
    assert outcome_of(1.0 + 0.01 * spread) == outcome_of(1.05 + 0.01 * spread) == "pass"
    assert outcome_of(1.05 + 0.05 * spread) == outcome_of(1.2 + 0.05 * spread) == "no power"
    assert outcome_of(1.4 + 0.02 * spread) == outcome_of(0.6 + 0.02 * spread) == "fail"
    found = nearness(1.05 + 0.01 * spread)
    assert found.smallest == pytest.approx(0.05 + 2.131847 * 0.01)  # t(4) at 0.95
    assert found.threshold == pytest.approx(8.610302)  # t(4) at 1 - 0.0005: the sign is chosen from the data
    assert found.statistic == pytest.approx(-5)


def test_a_true_ratio_of_1_2_is_not_said_to_benearness():
    """2,000 sets of five seeds with 10 % scatter: near is said of 1.1 in 5 % at most, of 1.2 hardly ever."""
    random = np.random.default_rng(1)
    for truth, most in ((1.1, 0.065), (1.2, 0.01)):
        said = [outcome_of(truth * (1 + 0.1 * random.standard_normal(5))) == "pass" for _ in range(2000)]
        assert np.mean(said) <= most


def test_a_rate_whose_average_is_not_positive_is_judged_without_a_logarithm_of_it():
    """Late averages at or below zero do not grow; early ones leave nothing to compare with."""
    flat = np.ones((4, 100))
    late, early = flat.copy(), flat.copy()
    late[:, -1], early[:, 9] = -0.1, -0.1
    late[0, -1] = 0.2
    assert rate_growth(late).outcome == "pass" and rate_growth(early).outcome == "no power"
    # The mean is positive, and without the first seed it is not.
    early[:, 9] = late[:, -1] = (4, -1, -1, -1)
    assert rate_growth(early).outcome == "no power" and rate_growth(late).statistic == -math.inf


def test_the_growth_of_the_rate_by_hand():
    """T_n of 2 for four seeds at both ends: growth is the log of (1 + log 10) / sqrt(10) over that of 100."""
    level = np.full((4, 100), 2.0) * np.array([[0.9], [1.0], [1.0], [1.1]])
    found = rate_growth(level)
    growth = math.log((1 + math.log(10)) / math.sqrt(10) / ((1 + math.log(100)) / 10))
    assert found.evidence["growth of its logarithm"] == pytest.approx(growth)
    assert found.evidence["standard error"] == pytest.approx(0, abs=1e-12)
    assert found.threshold == pytest.approx(10.214532)  # t(3) at 0.999


def test_bands_are_students():
    band = summarise(recorded(grad_sq=lambda _: 2.0)).gradient
    values = 2 * (1 + 0.05 * np.random.default_rng(0).standard_normal(SEEDS))
    half = 2.364624 * values.std(ddof=1) / math.sqrt(SEEDS)  # the t quantile with 7 degrees of freedom
    assert band.low[0] == pytest.approx(values.mean() - half)
    assert band.high[0] == pytest.approx(values.mean() + half)


def test_members_that_diverged_are_left_out_and_fail():
    gone = [{"seed": 3, "step": 7, "value": math.inf}]
    trajectory = recorded(grad_sq=lambda m: (m + 1) ** -0.5, diverged=gone)
    trajectory.frame.loc[trajectory.frame["seed"] == 3, "grad_sq"] = math.nan
    summary = summarise(trajectory)
    assert not summary.verdicts[0].passed
    assert summary.verdicts[0].evidence["first"] == "seed 3 at step 7"
    assert np.isfinite(summary.running.mean).all()


def test_nothing_is_said_of_nothing():
    everyone = [{"seed": seed, "step": 7, "value": math.inf} for seed in range(SEEDS)]
    with pytest.raises(ValueError, match="Every member diverged"):
        summarise(recorded(grad_sq=lambda _: 1.0, diverged=everyone))
    with pytest.raises(ValueError, match="add the probe 'gradient'"):
        summarise(recorded(bound_train=lambda _: 1.0))


def test_what_was_measured_at_the_end_only_is_reported():
    summary = summarise(recorded(grad_sq=lambda _: 1.0, log_likelihood=lambda m: 5.0 if m == STEPS else math.nan))
    assert isinstance(summary.final["log-likelihood, test"], Estimate)
    assert summary.final["log-likelihood, test"].value == pytest.approx(5, rel=0.1)


def test_no_rate_is_claimed_of_steps_that_fall_by_the_epoch():
    def falling(m):
        return (m + 1) ** -0.5

    claimed, other = summarise(recorded(grad_sq=falling)), summarise(recorded(grad_sq=falling, period=50))
    assert "rate" in {one.gate for one in claimed.verdicts} and claimed.envelope is not None
    assert {one.gate for one in other.verdicts} == {"finite"} and other.envelope is None


def test_the_fitted_envelope_says_where_it_was_fitted():
    envelope = summarise(recorded(grad_sq=lambda m: (m + 1) ** -0.5)).envelope
    assert envelope is not None and envelope.fitted == STEPS // 10
    assert envelope.label.endswith("fitted on steps 1 to 500")
    measured = summarise(quadratic()).envelope
    assert measured is not None and measured.fitted is None
