"""How often `run_gates` finds small faults on the bed and with the budget that `vaebench check` has by default.

`python -m tests.convergence.faults detection` runs what detection.csv does not hold yet, effect by effect in turn, and
writes it after every run. Every run has data, a model and a seed of its own.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from tests.convergence.faults.loops import stepping
from tests.convergence.faults.measuring import Say, measure_missing
from tests.ledgers import Row
from vaebench.data import linear_gaussian
from vaebench.gates import run_gates
from vaebench.gradients.estimators import pathwise
from vaebench.gradients.objectives import Objective
from vaebench.models import linear_vae
from vaebench.training.fleet import train
from vaebench.training.schedules import inverse_sqrt

RUNS = 20  # seeds of each effect
STEPS, LASTING, WINDOW = 2500, 50, 100
COLUMNS = ("effect", "seed", "settings", "found", "gates", "processor seconds")
CONFIDENCE = 0.95


def bed(seed: int, **objective: Any) -> dict[str, Any]:
    """What `vaebench check --seed` certifies, with K = 5 and one latent where the effect needs them."""
    data = linear_gaussian(generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    latents = {"latents": 1} if objective else {}
    model = linear_vae(generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64, **latents)
    base = {"model": model, "data": data, "objective": Objective(**objective), "schedule": inverse_sqrt(0.01)}
    return base | {"estimator": pathwise, "law": "pathwise", "steps": STEPS}


def estimated(estimator: Callable, **objective: Any) -> Callable[[int], dict[str, Any]]:
    """An effect in the estimator."""
    return lambda seed: bed(seed, **objective) | {"estimator": estimator}


def looped(alter: Callable[[int], Callable]) -> Callable[[int], dict[str, Any]]:
    """An effect that a training loop works on the gradients that it hands its optimizer."""

    def arguments(seed: int) -> dict[str, Any]:
        def trainer(model, estimator, objective, data, optimizer, *rest, **options):
            changed = stepping(alter(seed), in_place=True)({"optimizer": optimizer})["optimizer"]
            return train(model, estimator, objective, data, changed, *rest, **options)

        return bed(seed) | {"trainer": trainer}

    return arguments


def lighter_divergence(model, x, noise, objective):
    return pathwise(model, x, noise, Objective(objective.samples, beta=0.98))


def narrower_noise(model, x, noise, objective):
    return pathwise(model, x, 0.99 * noise, objective)


def larger_input(model, x, noise, objective):
    q = model.posterior(1.01 * x)
    return objective.bound(objective.log_weights(model, x, q.transport(noise), q))


def other_alpha(model, x, noise, objective):
    return pathwise(model, x, noise, Objective(objective.samples, 0.02))


def one_sample_less_in_the_value(model, x, noise, objective):
    bound, samples = pathwise(model, x, noise, objective), objective.samples
    return bound, bound + math.log(samples / (samples - 1))


def decayed(seed: int) -> Callable:
    return lambda gradients, parameters, memory: [
        g + 1e-4 * p.detach() for p, g in zip(parameters, gradients, strict=True)
    ]


def clipped(seed: int) -> Callable:
    """At the 90th percentile of each member's last hundred norms."""

    def alter(gradients, parameters, memory):
        norms = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients]).sum(0).sqrt()
        seen = memory.setdefault("norms", [])
        seen.append(norms)
        del seen[:-WINDOW]
        factor = (torch.stack(seen).quantile(0.9, dim=0) / norms).clamp(max=1)
        return [g * factor.view(-1, *[1] * (g.ndim - 1)) for g in gradients]

    return alter


def for_fifty_steps(seed: int) -> Callable:
    """A tenth of the gradient is lost in fifty successive steps, wherever the seed puts them."""
    first = int(torch.randint(STEPS - LASTING, (), generator=torch.Generator().manual_seed(seed + 100)))

    def alter(gradients, parameters, memory):
        memory["n"] = memory.get("n", 0) + 1
        return [(0.9 if first < memory["n"] <= first + LASTING else 1.0) * g for g in gradients]

    return alter


IWAE = {"samples": 5, "alpha": 0.0}
EFFECTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "weight decay of 1e-4, hidden in the loop": looped(decayed),
    "clip at a rolling percentile": looped(clipped),
    "a tenth of the gradient lost for fifty steps": looped(for_fifty_steps),
    "KL weight 0.98": estimated(lighter_divergence),
    "noise times 0.99": estimated(narrower_noise),
    "encoder sees 1.01 x": estimated(larger_input),
    "log(K - 1) in the estimator's own value": estimated(one_sample_less_in_the_value, **IWAE),
    "alpha 0.02 for 0": estimated(other_alpha, **IWAE),
    "nothing (control)": bed,
}


def examine(effect: str, seed: int, **options: Any) -> dict[str, str]:
    """The row of one run."""
    began = time.process_time()
    failed = [one.gate for one in run_gates(**(EFFECTS[effect](seed) | options), seed=seed) if one.outcome == "fail"]
    spent = f"{time.process_time() - began:.0f}"
    row = {"effect": effect, "seed": str(seed), "found": str(int(bool(failed)))}
    return row | {"gates": "; ".join(failed), "processor seconds": spent}


def run(folder: Path, say: Say, runs: int = RUNS) -> None:
    """Examine what the table does not hold."""

    def measured(effect: str, seed: int) -> list[Row]:
        row = examine(effect, seed)
        say(row["gates"] or "no alarm")
        return [row]

    jobs = {(effect, str(seed)): partial(measured, effect, seed) for seed in range(runs) for effect in EFFECTS}
    measure_missing(folder / "detection.csv", COLUMNS, ("effect", "seed"), jobs, say)


def rate(found: int, runs: int) -> tuple[float, float]:
    """The limits of Clopper & Pearson at 95 %."""
    tail = (1 - CONFIDENCE) / 2
    low = float(stats.beta.ppf(tail, found, runs - found + 1)) if found else 0.0
    high = float(stats.beta.ppf(1 - tail, found + 1, runs - found)) if found < runs else 1.0
    return low, high


def summary(rows: list[dict[str, str]]) -> list[tuple[str, int, int, float, float, str]]:
    """Effect, found, runs, limits of the rate, and the gates that found it, most often first."""
    table = []
    for effect in EFFECTS:
        own = [row for row in rows if row["effect"] == effect]
        gates = [gate for row in own for gate in row["gates"].split("; ") if gate]
        found = sum(row["found"] == "1" for row in own)
        if own:
            often = sorted(dict.fromkeys(gates), key=lambda gate: -gates.count(gate))
            table.append((effect, found, len(own), *rate(found, len(own)), ", ".join(often)))
    return table
