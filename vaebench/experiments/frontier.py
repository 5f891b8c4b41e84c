"""The frontier: given a compute budget, which estimator, B and K give the smallest gradient norm?

One pilot run of SGD gives what the second-order law of T_n needs along the path: f, |grad f|^2, E g'Hg and the parts
sigma^2_data and sigma^2_latent of every estimator's variance. For another (estimator, B, K) only the variance
changes, v = sigma^2_data / B + sigma^2_latent / (B K), and with it

    T_n = (1/n) {sum_k (f(x_{k-1}) - f(x_k)) / gamma_k + (1/2) sum_k gamma_k q_k (G_k + v) / (G_k + v_pilot)},

G_k = |grad f|^2 and q_k the pilot's E g'Hg, as if noise and gradient met the same curvature and f fell along the
pilot's path. The number
of steps n is what the budget buys at the counted cost of one gradient. The best few are then run, and the forecast is
compared with what they reach.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vaebench.experiments.building import build
from vaebench.experiments.experiment import Arm, ComponentSpec, Experiment
from vaebench.experiments.presets import SCALES
from vaebench.experiments.probes.landscape import SPLIT
from vaebench.experiments.record import Record, read_record
from vaebench.experiments.running import cost, gradient
from vaebench.experiments.studies import Study
from vaebench.experiments.trajectory import Trajectory
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import device_seconds
from vaebench.theory.series import by_parts
from vaebench.training.schedules import inverse_sqrt

REPEATS = 7
CHECKED = 3  # of the best forecasts, and the worst, are run
SHORTEST_FORECAST = 30  # steps below which no forecast is made
SIZES = {"smoke": ((8, 32), (1, 4)), "default": ((8, 32, 128, 512), (1, 4, 16)), "paper": ((32, 64, 256), (1, 5))}
BUDGETS = {"smoke": 0.03, "default": 5.0, "paper": 2e6}  # GFLOP


class Candidate(NamedTuple):
    """A way to spend the budget."""

    estimator: str
    batch_size: int
    samples: int

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.estimator} B={self.batch_size} K={self.samples}"


class Price(NamedTuple):
    """One gradient's exact GFLOP and measured seconds."""

    gflop: float
    seconds: float


class Forecast(NamedTuple):
    """What a candidate is expected to reach.

    Attributes:
        candidate: which.
        price: of one gradient.
        steps: that the budget buys.
        value: of T_n then, mean over the pilot's seeds.
        error: its standard error over the pilot's seeds.
    """

    candidate: Candidate
    price: Price
    steps: int
    value: float
    error: float


def base(scale: str) -> Experiment:
    """The experiment that candidates vary, SGD on the ELBO, at the scale "smoke", "default" or "paper"."""
    if scale not in SIZES:
        raise ValueError(f"scale must be one of {', '.join(SIZES)}, got {scale!r}.")
    one = SCALES[scale].base
    steps = inverse_sqrt(one.schedule.scale / 10)
    return replace(one, optimizer=ComponentSpec("sgd"), schedule=steps, probes=("gradient", "bounds", "curvature"))


def experiment_of(candidate: Candidate, start: Experiment, steps: int) -> Experiment:
    """A candidate's run of n steps, as a variation of an experiment."""
    objective = Objective(candidate.samples)
    return replace(
        start, estimator=candidate.estimator, batch_size=candidate.batch_size, objective=objective, steps=steps
    )


def prices(scale: str, progress: Callable[[str], None]) -> dict[Candidate, Price]:
    """Cost of one gradient of every candidate of a scale, counted and timed here; progress is told each."""
    start, found = base(scale), {}
    problem = build(start)
    for candidate in itertools.starmap(Candidate, itertools.product(SPLIT, *SIZES[scale])):
        progress(candidate.label)
        one = experiment_of(candidate, start, 1)
        candidate_problem = replace(problem, estimator=build(one).estimator)
        seconds = device_seconds(gradient(one, candidate_problem), one.device, REPEATS)
        found[candidate] = Price(cost(one, candidate_problem)["GFLOP per gradient"], float(np.median(seconds)))
    return found


def pilot(scale: str, budget: float, known: dict[Candidate, Price]) -> Experiment:
    """The run from which all forecasts are made, as long as the cheapest candidate's for a budget in GFLOP a member."""
    start = base(scale)
    steps = max(SHORTEST_FORECAST, int(budget / min(price.gflop for price in known.values())))
    middle = Candidate("pathwise", SIZES[scale][0][1], 1)
    return replace(experiment_of(middle, start, steps), probes=(*start.probes, "variance_split"))


def forecasts(trajectory: Trajectory, budget: float, known: dict[Candidate, Price]) -> list[Forecast]:
    """What every candidate is expected to reach, the best first, if the budget buys at least 30 of its steps."""
    record, found = read_record(trajectory), []
    for candidate, price in known.items():
        steps = min(int(budget / price.gflop), int(record.marks[-1]))
        if steps >= SHORTEST_FORECAST:
            values = _law(record, candidate)[:, steps - 1]
            error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
            found.append(Forecast(candidate, price, steps, float(values.mean()), error))
    return sorted(found, key=lambda forecast: forecast.value)


def _law(record: Record, candidate: Candidate) -> np.ndarray:
    """T_1 .. T_n of every seed of the pilot under the candidate's variance, (S, n)."""
    gamma = record.steps()
    squares, noise, curved = (
        record.everywhere(name)[:, :-1] for name in ("grad_sq", "grad_variance", "gradient_curvature")
    )
    data, latent = (record.everywhere(f"{part}_{candidate.estimator}")[:, :-1] for part in ("data", "latent"))
    variance = data.clip(0) / candidate.batch_size + latent / (candidate.batch_size * candidate.samples)
    ratio = (squares.clip(0) + variance) / (squares.clip(0) + noise)
    fallen = by_parts(gamma, record.everywhere("bound_train"))
    return (fallen + np.cumsum(gamma * curved * ratio, 1) / 2) / np.arange(1, len(gamma) + 1)


def checks(found: Sequence[Forecast], scale: str, budget: float) -> Study:
    """The study that runs the best forecasts, the best of each other estimator, and the worst."""
    best_of_each = {one.candidate.estimator: one for one in reversed(found)}.values()
    chosen = list(dict.fromkeys([*found[:CHECKED], *best_of_each, found[-1]]))
    arms = tuple(Arm(one.candidate.label, experiment_of(one.candidate, base(scale), one.steps)) for one in chosen)
    question = f"Given {budget:g} GFLOP, which estimator, B and K give the smallest gradient norm under SGD?"
    return Study("frontier-runs", scale, question, "candidate", arms)
