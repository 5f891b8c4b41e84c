"""Correct runs: the p-values of every gate beside their law. `python -m tests.convergence.faults calibration`.

Beds are small: by far most time goes to quadratures, of which Hessians along the path need one for each example. A gate
of several comparisons has Bonferroni's p-value, the level times the ratio of tails at the statistic and at the
threshold; so its p-values may be larger than uniform ones, never smaller. Gates of one comparison have uniform ones.
"""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats

from tests.convergence.faults.beds import problem
from tests.convergence.faults.measuring import Say, measure_missing
from vaebench.data import linear_gaussian
from vaebench.gates import Verdict, run_gates
from vaebench.gates.verdict import LEVEL
from vaebench.gradients.estimators import analytic_kl, pathwise
from vaebench.gradients.objectives import Objective
from vaebench.models import GaussianRegression, deep_gaussian_vae, mean_field, mlp_vae
from vaebench.support.files import write_whole
from vaebench.training.schedules import inverse_sqrt

RUNS = 40  # seeds of each bed
COSTLY = {"IWAE": 20, "deep Gaussian, two latents": 20}  # of these, whose quadratures take seconds: 200 runs in all
SMALL = {"steps": 100, "members": 4, "replicates": 800, "batch_size": 4}
COLUMNS: tuple[str, ...] = ("bed", "seed", "settings", "gate", "statistic", "threshold", "outcome", "p")
UNIFORM = ("members", "noise size")  # gates whose p-values are uniform, not only not too small
LEVELS = {"variance in B", "variance in K", "SNR in K", "identity"}  # statistics that are no quantiles
ONE_SIDED = {"telescoped envelope", "envelope", "Adam's ledger"}  # far below their bounds in a correct run


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _linear(optimizer: str) -> dict[str, Any]:
    model, data = problem(64, 2)
    return {"model": model, "data": data, "objective": Objective(), "estimator": analytic_kl, "optimizer": optimizer}


def _iwae() -> dict[str, Any]:
    model, data = problem(12, 1)
    return {"model": model, "data": data, "objective": Objective(3, 0.0), "estimator": pathwise}


def _deep() -> dict[str, Any]:
    model = deep_gaussian_vae((3,), (3,), 2, generator=_generator(1), dtype=torch.float64)
    data = linear_gaussian(6, 3, generator=_generator(2), dtype=torch.float64) / 2
    return {"model": model, "data": data, "objective": Objective(), "estimator": analytic_kl}


def _bernoulli() -> dict[str, Any]:
    model = mlp_vae((4,), (3,), 1, generator=_generator(3), dtype=torch.float64)
    data = torch.bernoulli(torch.full((16, 4), 0.4, dtype=torch.float64), generator=_generator(4))
    return {"model": model, "data": data, "objective": Objective(), "estimator": analytic_kl}


def _black_box() -> dict[str, Any]:
    draw = torch.randn(12, 4, generator=_generator(5), dtype=torch.float64)
    model = mean_field(GaussianRegression(draw[:, :3], 0.5))
    data = draw[:, 3].expand(8, -1).clone()
    return {"model": model, "data": data, "objective": Objective(), "estimator": pathwise}


BEDS: dict[str, Callable[[], dict[str, Any]]] = {
    "linear, SGD": lambda: _linear("sgd"),
    "linear, Adam": lambda: _linear("adam"),
    "IWAE": _iwae,
    "deep Gaussian, two latents": _deep,
    "Bernoulli mlp": _bernoulli,
    "black-box VI": _black_box,
}


def p_value(verdict: Verdict) -> float:
    """Bonferroni's p-value of a verdict by its statistic, its threshold and the level that they stand for."""
    if verdict.gate.startswith("gradient mean"):
        return min(1.0, verdict.false_alarm * 10 ** (verdict.threshold - verdict.statistic))
    return float(min(1.0, LEVEL * stats.norm.sf(verdict.statistic) / stats.norm.sf(verdict.threshold)))


def examine(bed: str, seed: int) -> list[dict[str, str]]:
    """The rows of one run; gates without chance are left out."""
    found = run_gates(**BEDS[bed](), **SMALL, schedule=inverse_sqrt(0.01), seed=seed)
    rows = []
    for verdict in found:
        if verdict.false_alarm:
            judged = verdict.gate not in LEVELS | ONE_SIDED
            p = f"{p_value(verdict):.4g}" if judged else ""
            row = {"bed": bed, "seed": str(seed), "gate": verdict.gate, "outcome": verdict.outcome, "p": p}
            numbers = {"statistic": f"{verdict.statistic:.4g}", "threshold": f"{verdict.threshold:.4g}"}
            rows.append(row | numbers)
    return rows


def run(folder: Path, say: Say, runs: int = RUNS) -> None:
    """Examine what the table does not hold, write it after every run, and draw the figure."""
    seeds = [(bed, seed) for seed in range(runs) for bed in BEDS if seed < COSTLY.get(bed, runs)]
    seeds.sort(key=lambda one: one[0] in COSTLY)
    jobs = {(bed, str(seed)): partial(examine, bed, seed) for bed, seed in seeds}
    rows = measure_missing(folder / "calibration.csv", COLUMNS, ("bed", "seed"), jobs, say)
    write_whole(folder / "calibration.svg", figure(rows).encode())
    for line in summary(rows):
        say(line)


def by_gate(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Sorted p-values of the gates that have them."""
    gates = dict.fromkeys(row["gate"] for row in rows if row["p"])
    return {gate: np.sort([float(r["p"]) for r in rows if r["gate"] == gate and r["p"]]) for gate in gates}


def summary(rows: list[dict[str, str]]) -> list[str]:
    """Alarms, and for every gate the one-sided distance to the uniform law with its p-value."""
    runs = {(row["bed"], row["seed"]) for row in rows}
    alarms = [f"{row['bed']} seed {row['seed']}: {row['gate']}" for row in rows if row["outcome"] == "fail"]
    lines = [f"{len(runs)} correct runs, alarms: {', '.join(alarms) or 'none'}"]
    for gate, p in by_gate(rows).items():
        small = stats.kstest(p, "uniform", alternative="greater")
        lines.append(f"{gate}: {len(p)} p-values, least {p[0]:.2g}, too small with p = {small.pvalue:.2g}")
    return lines


def figure(rows: list[dict[str, str]]) -> str:
    """Quantiles of the p-values against uniform ones, on logarithmic axes, a line for each gate."""
    picture = Figure(figsize=(6, 5), layout="constrained")
    axes = picture.subplots()
    for gate, p in by_gate(rows).items():
        expected = (np.arange(len(p)) + 0.5) / len(p)
        axes.plot(expected, p, label=gate, linewidth=2 if gate in UNIFORM else 0.8)
    low = 0.5 / max(map(len, by_gate(rows).values()))
    axes.plot([low, 1], [low, 1], color="black", linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="uniform quantile", ylabel="p-value", title="Correct runs")
    axes.legend(fontsize=7, frameon=False)
    text = io.StringIO()
    picture.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
