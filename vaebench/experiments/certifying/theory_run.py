"""A run on a bed with an exact gradient, beside theory's bounds and predictions of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vaebench.experiments.certifying import beds
from vaebench.experiments.certifying.intervals import CONFIDENCE, Interval, mean_ratio
from vaebench.experiments.certifying.question import Question
from vaebench.experiments.certifying.right import BED_SCALE
from vaebench.gates import bounds
from vaebench.gates.path import Path
from vaebench.gates.reference import Reference, exact_reference
from vaebench.gates.running import Plan, Run, watch_run
from vaebench.gates.subject import Subject
from vaebench.theory import envelopes, ledger, predictions
from vaebench.training.optimizers import OPTIMIZERS
from vaebench.training.records import geometric
from vaebench.training.schedules import inverse_sqrt

STEPS = 1000  # of the run, at most
FEW = 16  # examples where every step's exact gradient is a quadrature


@dataclass(frozen=True)
class Curve:
    """A quantity along a run.

    Attributes:
        label: what it is.
        step: steps taken.
        mean: over seeds.
        low: of its 95 % band; the mean itself where there is none.
        high: of its band.
    """

    label: str
    step: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def on_bed(q: Question, left_out: list[str]) -> tuple[str, list[Curve], dict[str, Interval]]:
    """The run, its curves, and their ratios at its end.

    Args:
        q: what is asked.
        left_out: told why, if there is nothing to draw.

    Returns:
        The name of the bed; curves; ratios by name.
    """
    elbo = q.objective.alpha == 1
    name = "linear VAE" if elbo else "one latent"
    model, data = beds.linear(q.generator(1)) if elbo else beds.one_latent(q.generator(2))
    data = data if elbo else data[:FEW]
    exact = exact_reference(model, q.objective, data)  # pyright: ignore[reportArgumentType]
    if exact is None or q.optimizer not in {"sgd", "adam"}:
        left_out.append(f"theory's curves: none are known for {q.optimizer} on the bed {name!r} at {q.objective.name}")
        return "", [], {}
    subject = Subject(model, q.estimator, q.objective, data, 8, OPTIMIZERS[q.optimizer])
    plan, schedule = Plan(min(q.level.steps, STEPS), q.level.members, 8, q.seed + 1), inverse_sqrt(BED_SCALE)
    run = watch_run(subject, schedule, exact, plan, lambda line: None)
    if run.path is None or run.diverged:
        left_out.append(f"theory's curves: {len(run.diverged)} of {plan.members} seeds diverged on the bed {name!r}")
        return "", [], {}
    curves, numbers = (_sgd if q.optimizer == "sgd" else _adam)(run, run.path, exact)
    return name, curves, numbers


def _sgd(run: Run, path: Path, exact: Reference) -> tuple[list[Curve], dict[str, Interval]]:
    """T_n per seed beside the telescoped bound, the theorem's envelope, and the second-order prediction."""
    found, values, n = bounds.curvature(path, exact, run.like), bounds.values(path, exact, run.like), path.prefix
    gamma = path.gamma[:n].double().cpu().numpy()
    noise = path.moved[:n] - path.exact[:n]
    squared, size = (part[:n].square().sum(-1).T.double().cpu().numpy() for part in (path.exact, noise))
    steps = np.arange(1, n + 1)
    running = np.cumsum(squared, -1) / steps
    top = found.top.T.double().cpu().numpy()
    sides = envelopes.uniform_telescoped(gamma, squared, values, top, size)
    curves = [band("Tₙ, measured", running), band("telescoped bound", sides.right, True)]
    numbers = {"left / right of the telescoped bound": mean_ratio(sides.left[:, -1], sides.right[:, -1])}
    largest, mean = max(block.mean() for block in np.array_split(size.mean(0), max(1, n // 50))), values.mean(0)
    if float(top.max()) * BED_SCALE < 2:
        gap = float(mean.max() - mean.min())
        envelope = envelopes.uniform_bounded(gap, BED_SCALE, float(top.max()), float(largest), n)
        curves.append(band("the theorem's envelope", envelope[None], True))
        numbers["Tₙ / the theorem's envelope"] = mean_ratio(running[:, -1], np.full(len(running), envelope[-1]))
    if found.hessians.shape[1]:
        law = predictions.mean_squared_gradient(gamma, values, *_curved(path, found, noise))
        curves.append(band("prediction", law, True))
        numbers["Tₙ / its prediction"] = mean_ratio(running[:, -1], law[:, -1])
    return curves, numbers


def _curved(path: Path, found: bounds.Curvature, noise: Tensor) -> tuple[np.ndarray, np.ndarray]:
    n = path.prefix
    segment = torch.bucketize(torch.arange(n), torch.tensor(found.marks), right=True) - 1
    hessians = ((found.hessians[:-1] + found.hessians[1:]) / 2)[segment]
    return tuple(  # pyright: ignore[reportReturnType]
        (v * (hessians @ v.unsqueeze(-1)).squeeze(-1)).sum(-1).T.double().cpu().numpy() for v in (noise, path.exact[:n])
    )


def _adam(run: Run, path: Path, exact: Reference) -> tuple[list[Curve], dict[str, Interval]]:
    """Both sides of Adam's ledger as the run goes on."""
    found, n = bounds.curvature(path, exact, run.like), path.prefix
    account, start = ledger.AdamLedger.begin(path.before[0]), path.values[0]
    marks = {k for k in geometric(n, 12) if k > bounds.BURN_IN}
    left, right = [], []
    for k in range(n):
        account = ledger.record_step(
            account, path.raw[k], path.exact[k], float(path.gamma[k]), found.top[k], start=bounds.BURN_IN
        )
        if k + 1 != bounds.BURN_IN and k + 1 not in marks:
            continue
        here = path.before[k + 1] if k + 1 < n else path.end
        value, _ = exact.evaluate(bounds.unflatten(here + ledger.offset(account), run.like))
        if k + 1 == bounds.BURN_IN:
            start = value
        else:
            sides = ledger.sides(account, start, value)
            left.append(sides.left)
            right.append(sides.right)
    steps = sorted(marks)
    curves = [
        band("preconditioned squared gradients", np.array(left).T, steps=steps),
        band("Adam's ledger allows", np.array(right).T, True, steps),
    ]
    return curves, {"left / right of Adam's ledger": mean_ratio(left[-1], right[-1])}


def band(label: str, rows: np.ndarray, line: bool = False, steps: Sequence[int] | None = None) -> Curve:
    """Mean and Student band over seeds.

    Args:
        label: what it is.
        rows: by seed, (S, n).
        line: whether it has no band.
        steps: of the columns; default 1 .. n, of which some sixty are kept, equally spaced in the logarithm.

    Returns:
        The curve.
    """
    kept = [step for step in geometric(rows.shape[1], 24) if step] if steps is None else list(steps)
    shown = rows[:, [step - 1 for step in kept]] if steps is None else rows
    mean = shown.mean(0)
    wide = np.zeros_like(mean)
    if not line and len(shown) > 1:
        wide = stats.t.isf((1 - CONFIDENCE) / 2, len(shown) - 1) * shown.std(0, ddof=1) / math.sqrt(len(shown))
    return Curve(label, tuple(kept), *(tuple(map(float, part)) for part in (mean, mean - wide, mean + wide)))
