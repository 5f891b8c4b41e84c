"""The squared gradient along training, until it is small, for every arm and seed.

|grad f|^2, f the loss over the whole data set, is estimated without bias at checkpoints, with a standard error, from
the same replicates for every estimator of a bound: those of the doubly reparameterized gradient, which has the same
expectation and the least noise. A seed has reached a level at the first checkpoint where the upper limit of the
estimate is below: where the level is not reached, noise says so with probability 0.04 at most at a checkpoint.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.accuracy.arms import BATCH, SCHEDULE, SEEDS, Arm, arms, data, key, net
from benchmarks.peers import tables
from vaebench.gradients.estimators import ESTIMATORS, doubly_reparameterized
from vaebench.gradients.loss import Loss
from vaebench.measures.moments import fresh, gradient_moments
from vaebench.measures.probes import grad_sq
from vaebench.support.seeding import derived_seed
from vaebench.training.fleet import train
from vaebench.training.optimizers import adam
from vaebench.training.records import State, geometric

LEVELS = (2.0, 0.3)
STEPS, FIRST, PER_DECADE = 2000, 20, 8
REPLICATES, ROWS = 32, 256
ERRORS = 2.08  # the 0.977 quantile of t with 31 degrees of freedom


def reached(estimate: float, error: float, level: float) -> bool:
    """Whether a squared gradient is at most a level, noise allowed for; never if it is not a number."""
    return upper_limit(estimate, error) <= level


def upper_limit(estimate: float, error: float) -> float:
    """Which squared gradient an estimate U with error e excludes: U + t e + t^2 e^2 / max(U, e).

    The estimate and its error rise and fall together, so that U + 2 e is too low a limit: where the noise points
    along few directions it lies below the truth in up to 20 % of all cases. The last term, that of a squared normal
    variable twice over, makes up for that.
    """
    if error == 0:
        return estimate
    return estimate + ERRORS * error + (ERRORS * error) ** 2 / max(estimate, error)


def squares(state: State) -> Tensor:
    """|grad f|^2 of each member with its standard error, (S, 2)."""
    loss = Loss(state.loss.model, doubly_reparameterized, state.loss.objective)

    def one(parameters: dict[str, Tensor], seed: int) -> object:
        generator = torch.Generator().manual_seed(derived_seed(seed, "squares", state.step))
        draws = fresh(loss, state.data, ROWS, generator)
        return grad_sq(gradient_moments(loss, draws, REPLICATES, parameters))

    return state.each_seed(one)


def measure(arm: Arm, steps: int = STEPS) -> list[dict[str, object]]:
    """Train all seeds at once until every one has reached the lowest level: a row for each checkpoint and seed."""
    marks = tuple(mark for mark in geometric(steps, PER_DECADE) if mark == 0 or mark >= min(FIRST, steps))
    rows: list[dict[str, object]] = []
    waiting = set(SEEDS)
    estimator, models = ESTIMATORS[arm.estimator], [net(seed) for seed in SEEDS]
    run = train(
        models, estimator, arm.objective, data(), adam, SCHEDULE, steps, BATCH, SEEDS,
        checkpoints=marks, probes={"squares": squares},
    )  # fmt: skip
    for checkpoint in run:
        for seed, (value, error) in zip(SEEDS, checkpoint.values["squares"].tolist(), strict=True):
            numbers = {"step": checkpoint.state.step, "seed": seed, "grad_sq": f"{value:.6g}", "error": f"{error:.3g}"}
            rows.append(key(arm) | numbers)
            waiting -= {seed} if reached(value, error, min(LEVELS)) else set()
        if not waiting:
            break
    return rows


def run(path: Path, say: Callable[[str], None], steps: int = STEPS) -> None:
    """Train every arm that the table does not hold, and keep its rows at once."""
    todo = list(arms())
    for number, arm in enumerate(todo, 1):
        where = f"[{number}/{len(todo)}] {arm.label}"
        if tables.has(tables.read(path), key(arm)):
            say(f"{where}: known")
            continue
        rows = measure(arm, steps)
        tables.replace(path, rows, key(arm))
        say(f"{where}: stopped after step {rows[-1]['step']}")
