"""The frontier: forecasts that are the second-order law, and a page that compares them with what was reached."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vaebench.experiments import frontier
from vaebench.experiments.frontier import Candidate, Price
from vaebench.experiments.trajectory import Trajectory
from vaebench.report.frontier import agrees, write_frontier
from vaebench.support.statistics import Estimate
from vaebench.training.records import geometric

STEPS, C, L, DATA, LATENT = 400, 0.05, 2.0, 24.0, 8.0
MARKS = np.array(geometric(STEPS, 32))
PILOT = Candidate("pathwise", 4, 1)
CHEAP = Price(1e-3, 1e-4)


def squares(variance: float) -> np.ndarray:
    """E x_n^2 of SGD on L x^2 / 2 under noise of that variance."""
    found = [4.0]
    for gamma in C / np.sqrt(np.arange(1, STEPS + 1)):
        found.append((1 - gamma * L) ** 2 * found[-1] + gamma**2 * variance)
    return np.array(found)


def recorded() -> Trajectory:
    """The pilot on that function, without scatter over its three seeds."""
    variance = (DATA + LATENT) / PILOT.batch_size
    second = squares(variance)[MARKS]
    columns = {
        "grad_sq": L**2 * second,
        "bound_train": L / 2 * second,
        "grad_variance": np.full(len(MARKS), variance),
        "gradient_curvature": L * (L**2 * second + variance),
    }
    columns |= {f"data_{name}": np.full(len(MARKS), DATA) for name in frontier.SPLIT}
    columns |= {f"latent_{name}": np.full(len(MARKS), LATENT) for name in frontier.SPLIT}
    rows = {"step": np.tile(MARKS, 3), "seed": np.repeat(range(3), len(MARKS))}
    rows |= {name: np.tile(values, 3) for name, values in columns.items()}
    experiment = {"schedule": {"scale": C, "exponent": 0.5}, "optimizer": {"name": "sgd"}}
    return Trajectory({"experiment": experiment, "diverged": [], "cost": {}}, pd.DataFrame(rows))


def exact(variance: float, steps: int) -> float:
    return float(L**2 * squares(variance)[:steps].mean())


@pytest.mark.parametrize(
    ("candidate", "tolerance"),
    [(PILOT, 0.01), (Candidate("pathwise", 4, 4), 0.1), (Candidate("analytic_kl", 8, 1), 0.2)],
)
def test_a_forecast_is_what_the_quadratic_reaches(candidate, tolerance):
    (found,) = frontier.forecasts(recorded(), 0.3, {candidate: CHEAP})
    variance = DATA / candidate.batch_size + LATENT / (candidate.batch_size * candidate.samples)
    assert found.steps == 300
    assert found.value == pytest.approx(exact(variance, 300), rel=tolerance)


def test_less_variance_at_the_same_price_is_better():
    sizes = [Candidate("pathwise", b, k) for b in (4, 16) for k in (1, 8)]
    found = frontier.forecasts(recorded(), 0.3, dict.fromkeys(sizes, CHEAP))
    assert found[0].candidate == Candidate("pathwise", 16, 8)
    assert found[-1].candidate == Candidate("pathwise", 4, 1)


def test_what_buys_too_few_steps_is_left_out():
    assert frontier.forecasts(recorded(), 0.02, {PILOT: CHEAP}) == []


def test_the_best_few_the_best_of_each_estimator_and_the_worst_are_run():
    known = {Candidate(name, b, 1): CHEAP for name in frontier.SPLIT for b in (4, 8, 16)}
    found = frontier.forecasts(recorded(), 0.3, known)
    study = frontier.checks(found, "smoke", 0.3)
    labels = [arm.label for arm in study.arms]
    assert labels[0] == found[0].candidate.label
    assert found[-1].candidate.label in labels
    assert {arm.experiment.estimator for arm in study.arms} == set(frontier.SPLIT)
    assert all(arm.experiment.steps == 300 for arm in study.arms)


def test_prices_are_exact_counts():
    known = frontier.prices("smoke", lambda _: None)
    small, large = (known[Candidate("pathwise", b, 1)] for b in (8, 32))
    assert large.gflop == pytest.approx(4 * small.gflop)
    assert all(price.seconds > 0 for price in known.values())


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale must be one of"):
        frontier.base("huge")


def test_the_page_says_which_was_best_and_whether_the_forecast_held(tmp_path):
    known = {Candidate("pathwise", b, 1): Price(1e-3 * b, 1e-4) for b in (4, 8)}
    found = frontier.forecasts(recorded(), 2.0, known)
    study = frontier.checks(found, "smoke", 2.0)
    reached = {one.candidate.label: Estimate(one.value * 1.1, 0.01) for one in found}
    path = write_frontier(study, found, reached, ["abc"], tmp_path / "frontier")
    page, about = path.read_text("utf-8"), json.loads((tmp_path / "frontier" / "report.json").read_text())
    assert found[0].candidate.label in page
    assert (about["checks"], about["failed"], about["state"]) == (2, 0, "good")
    off = {label: Estimate(3 * one.value, one.error) for label, one in reached.items()}
    write_frontier(study, found, off, ["abc"], tmp_path / "frontier")
    assert json.loads((tmp_path / "frontier" / "report.json").read_text())["state"] == "bad"


def test_agreement_allows_a_quarter_or_two_standard_errors():
    (one,) = frontier.forecasts(recorded(), 0.3, {PILOT: CHEAP})
    near = one._replace(value=1.0, error=0.0)
    assert agrees(near, Estimate(1.2, 0.0))
    assert not agrees(near, Estimate(2.0, 0.1))
    assert agrees(near, Estimate(2.0, 0.6))


def test_experiments_are_the_candidates():
    start = frontier.base("smoke")
    one = frontier.experiment_of(Candidate("analytic_kl", 8, 4), start, 70)
    assert (one.estimator, one.batch_size, one.objective.samples, one.steps) == ("analytic_kl", 8, 4, 70)
    assert replace(one, estimator=start.estimator).optimizer.name == "sgd"
