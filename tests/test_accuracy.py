"""Cost and accuracy on one page: what is reached is not noise, rows are kept, and what was not reached is said."""

import pkgutil
import re

import numpy as np
import pandas as pd
import pytest
import torch

import benchmarks
from benchmarks.accuracy import report, runs, steps
from benchmarks.accuracy.arms import SEEDS, Arm, arms, arms_of, data, key, net
from benchmarks.harness.pinned import pinned
from benchmarks.peers import tables
from vaebench.gradients.estimators import doubly_reparameterized
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.measures.moments import gather
from vaebench.measures.probes import grad_sq, squared_norm
from vaebench.support.files import write_whole
from vaebench.training.records import State

ARM = Arm(Objective(5, 0.0), "pathwise")


def test_asv_does_not_see_it():
    assert "accuracy" not in {module.name for module in pkgutil.iter_modules(benchmarks.__path__)}


def test_every_bound_has_the_estimators_that_it_can_have():
    assert len(set(arms())) == 16
    for arm in arms():
        loss = arm.loss(net(0))
        noise = torch.zeros(arm.objective.samples, 2, 8)
        assert loss(data()[:2], noise).isfinite()


def test_noise_is_allowed_for():
    """By hand: 0.2 + 2.08 x 0.02 + (2.08 x 0.02)^2 / 0.2 = 0.2503; 0.01 + 2.08 x 0.02 + 0.0416^2 / 0.02 = 0.1381."""
    assert runs.upper_limit(0.2, 0.02) == pytest.approx(0.25025, abs=1e-5)
    assert runs.upper_limit(0.01, 0.02) == pytest.approx(0.13813, abs=1e-5)
    assert runs.upper_limit(0.2, 0.0) == 0.2
    assert runs.reached(0.2, 0.02, 0.26) and not runs.reached(0.2, 0.02, 0.25)
    assert not runs.reached(float("nan"), 0.1, 1.0) and not runs.reached(0.1, float("nan"), 1.0)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.7, 0.45), (1.0,) * 12], ids=len)
def test_a_level_is_not_reached_by_noise_more_often_than_is_said(scales):
    """The truth is the level itself: 1,000 estimates from 32 normal gradients each, at the worst signal by the noise.

    A rate of 0.04 is met with more than 0.06 once in a thousand tests. U + 2 e, as it was, has 0.19, 0.14 and 0.04.
    """
    generator, spread = torch.Generator().manual_seed(3), torch.tensor(scales, dtype=torch.float64)
    level = 3 * float(spread.square().sum()) / 32
    shift = torch.zeros_like(spread)
    shift[0] = level**0.5
    count = 0
    for _ in range(1000):
        found = torch.randn(32, len(scales), generator=generator, dtype=torch.float64) * spread + shift
        estimate = grad_sq(gather([{"p": found}], 32))
        count += runs.reached(*estimate, level)
    assert count <= 60


def test_estimates_are_those_of_the_whole_data():
    """Against a mean of 5 gradients of all data, whose bias is far below; 5 errors: false alarms below 1e-6."""
    model = net(0)
    loss = Loss(model, doubly_reparameterized, Objective(5, 0.0))
    stacked = {name: p.unsqueeze(0) for name, p in own_parameters(loss).items()}
    ((value, error),) = runs.squares(State(0, stacked, loss, data(), (0,))).tolist()
    source = torch.Generator().manual_seed(1)
    total = {name: torch.zeros_like(p) for name, p in loss.named_parameters()}
    for _ in range(5):
        noise = torch.randn(5, len(data()), 8, generator=source)
        found = torch.autograd.grad(loss(data(), noise), list(loss.parameters()))
        for mean, one in zip(total.values(), found, strict=True):
            mean += one / 5
    assert 0 < error < 0.01 * value
    assert abs(value - squared_norm(total)) < 5 * error


def test_a_run_has_a_row_for_each_checkpoint_and_seed(monkeypatch):
    monkeypatch.setattr(runs, "ROWS", 32)
    rows = runs.measure(ARM, steps=3)
    assert [(row["step"], row["seed"]) for row in rows] == [(step, seed) for step in (0, 3) for seed in SEEDS]
    assert all(float(row["grad_sq"]) > 1 and float(row["error"]) > 0 for row in rows)


def test_a_run_ends_when_all_seeds_are_there(monkeypatch):
    monkeypatch.setattr(runs, "ROWS", 32)
    monkeypatch.setattr(runs, "LEVELS", (1e6, 1e5))
    assert {row["step"] for row in runs.measure(ARM, steps=3)} == {0}


def test_runs_resume(tmp_path, monkeypatch):
    path, made = tmp_path / "runs.csv", []

    def measure(arm, steps):
        made.append(arm)
        return [key(arm) | {"step": step, "seed": 0, "grad_sq": 1.0, "error": 0.1} for step in (0, steps)]

    monkeypatch.setattr(runs, "measure", measure)
    runs.run(path, lambda line: None, 7)
    lines = []
    runs.run(path, lines.append, 7)
    assert made == list(arms()) and len(tables.read(path)) == 2 * len(made)
    assert lines[0] == "[1/16] ELBO (K=1) pathwise: known"


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    path, lines = tmp_path_factory.mktemp("accuracy") / "steps.csv", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "BOUNDS", (Objective(5, 0.0),))
        patch.setattr(steps, "STAGES", (1, 2))
        patch.setattr(report, "STAGES", (1, 2))
        for _ in range(2):
            steps.run(path, lines.append, seconds=0.0, replicates=32)
    assert lines == ["steps, IWAE (K=5): measured", "steps, IWAE (K=5): known"]
    return tables.read(path)


def test_time_times_variance(costs):
    assert costs["estimator"].tolist() == [arm.estimator for arm in arms_of(Objective(5, 0.0))]
    for stage in (1, 2):
        product = costs["seconds"].astype(float) * costs[f"encoder_{stage}"].astype(float)
        np.testing.assert_allclose(product, costs[f"product_{stage}"].astype(float), rtol=2e-3)
        errors = [costs[f"{name}_{stage}_error"].astype(float) for name in ("encoder", "training", "product")]
        assert all((error > 0).all() for error in errors)
    assert costs["gflop"].nunique() == 2  # the score function does not differentiate z
    assert all((costs[name] == value).all() for name, value in pinned().items())


def table_of(grad_sq):
    """A run of two seeds: one that reaches 0.3 at step 20, one that never does."""
    rows = [
        {"bound": "IWAE (K=5)", "estimator": "pathwise", "step": step, "seed": seed, "grad_sq": value, "error": 0.01}
        for step, values in grad_sq.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame([{name: str(value) for name, value in row.items()} for row in rows])


def test_hits_are_the_first_checkpoint_below():
    found = report.hits(table_of({0: (9, 9), 10: (1.5, 5), 20: (0.2, 1), 40: (0.9, 1)}), 0.3)
    assert found.tolist() == [20, np.inf]
    assert report.hits(table_of({0: (9, 9), 10: (1.5, 5), 20: (0.2, 1)}), 2.0).tolist() == [10, 20]
    assert report.goal_cells(found, 0.5, 0.1) == ["not reached by 1 of 2", "", ""]
    assert report.goal_cells(np.array([20, 40, np.inf]), 0.5, 0.1) == [
        "40 [20, 40], not reached by 1 of 3", "20", "4"
    ]  # fmt: skip


def test_the_page(tmp_path, costs, monkeypatch):
    monkeypatch.setattr(report, "STAGES", (1, 2))
    report.write(tmp_path)
    assert "Nothing was measured yet." in (tmp_path / "README.md").read_text()
    write_whole(tmp_path / "steps.csv", costs.to_csv(index=False).encode())
    write_whole(tmp_path / "runs.csv", table_of({0: (9, 9), 10: (1.5, 5), 20: (0.2, 1)}).to_csv(index=False).encode())
    report.write(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert re.search(r"\| IWAE \(K=5\) \| pathwise \| 20 \[10, 20\] \| .* \| not reached by 1 of 2 \|", page)
    assert f"OMP_NUM_THREADS {pinned()['OMP_NUM_THREADS']}" in page and "foreach named" in page
    first = (tmp_path / "squares.svg").read_text()
    report.write(tmp_path)
    assert (tmp_path / "squares.svg").read_text() == first
