"""A run on a bed with an exact gradient, beside theory's bounds and predictions of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from vaebench.experiments.certifying import beds
from vaebench.experiments.certifying.intervals import CONFIDENCE, Interval, mean_ratio
from vaebench.experiments.certifying.question import Question
from vaebench.experiments.certifying.right import BED_SCALE
from vaebench.gates import bounds
from vaebench.gates.reference import Reference, exact_reference, flat
from vaebench.gradients import Parameters
from vaebench.theory import envelopes, ledger, predictions
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS
from vaebench.training.records import Step, geometric
from vaebench.training.schedules import inverse_sqrt

FEW = 16  # examples and seeds where every step's exact gradient is a quadrature
SHORT = 80  # steps of such a run


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
    steps, seeds = q.level.curve, q.level.members
    if exact.kind == "quadrature":
        steps, seeds = min(steps, SHORT), min(seeds, FEW)
    run = _record(q, model, data, exact, steps, seeds)
    if not run.exact.isfinite().all():
        left_out.append(f"theory's curves: a seed diverged on the bed {name!r}")
        return "", [], {}
    curves, numbers = (_sgd if q.optimizer == "sgd" else _adam)(run, exact)
    return name, curves, numbers


@dataclass(frozen=True)
class _Run:
    """A run at all of its n steps, S seeds and p parameters.

    Attributes:
        gamma: step sizes, (n,).
        at: parameters x_0 .. x_n, (n + 1, S, p).
        drawn: gradients g_1 .. g_n, (n, S, p).
        values: f(x_0) .. f(x_n), (n + 1, S).
        exact: grad f(x_0) .. grad f(x_n), (n + 1, S, p).
        like: stacked parameters, for names and shapes.
    """

    gamma: np.ndarray
    at: Tensor
    drawn: Tensor
    values: Tensor
    exact: Tensor
    like: Parameters


def _record(q: Question, model: nn.Module, data: Tensor, exact: Reference, steps: int, members: int) -> _Run:
    schedule = inverse_sqrt(BED_SCALE)
    rows: list[tuple[Tensor, ...]] = []

    def keep(step: Step) -> None:
        rows.append((flat(step.before), flat(step.gradients).clone(), *exact.evaluate(step.before)))

    seeds = torch.randint(2**31, (members,), generator=q.generator(10)).tolist()
    loop = train(
        model, q.estimator, q.objective, data, OPTIMIZERS[q.optimizer], schedule, steps, 8, seeds,
        checkpoints=(0, steps), observe=keep,
    )  # fmt: skip
    *_, last = loop
    like = last.state.parameters
    at, drawn, values, found = (torch.stack(part) for part in zip(*rows, strict=True))
    value, gradient = exact.evaluate(like)
    gamma = np.array([schedule(k) for k in range(1, len(rows) + 1)])
    ends = ((at, flat(like)), (values, value), (found, gradient))
    at, values, found = (torch.cat([part, end.unsqueeze(0)]) for part, end in ends)
    return _Run(gamma, at, drawn, values, found, like)


def _curvature(run: _Run, exact: Reference) -> Tensor:
    """L_k of every step, (n, S) or (n, 1).

    Hessians are taken at some forty steps, and the larger of the two ends holds in between; where each costs a
    quadrature, at two ends and of two seeds, and 1.5 times the largest curvature stands for all.

    Returns:
        The curvatures.
    """
    n = len(run.gamma)
    if exact.kind != "closed form":
        ends = run.at[[0, n], :2].flatten(0, 1)
        top = float(exact.top_curvatures(bounds.unflatten(ends, run.like)).max())
        return torch.full((n, 1), bounds.SAFETY * top, dtype=torch.float64)
    marks = sorted({*geometric(n, 12), *range(0, n, max(25, n // 40))})
    taken = torch.stack([exact.hessians(bounds.unflatten(run.at[k], run.like)) for k in marks])
    top = torch.linalg.eigvalsh(taken)[..., -1]
    segment = torch.bucketize(torch.arange(n), torch.tensor(marks), right=True) - 1
    return torch.maximum(top[segment], top[segment + 1])


def _sgd(run: _Run, exact: Reference) -> tuple[list[Curve], dict[str, Interval]]:
    """T_n per seed beside the telescoped bound, the theorem's envelope, and the second-order prediction."""
    top, n = _curvature(run, exact), len(run.gamma)
    values, gradient = run.values.T.numpy(), run.exact[:n]
    noise = run.drawn - gradient
    squared, size = (part.square().sum(-1).T.numpy() for part in (gradient, noise))
    running, largest = np.cumsum(squared, -1) / np.arange(1, n + 1), float(top.max())
    sides = envelopes.uniform_telescoped(run.gamma, squared, values, top.T.numpy(), size)
    curves = [band("Tₙ, measured", running), band("telescoped bound", sides.right, True)]
    numbers = {"left / right of the telescoped bound": share(sides.left[:, -1], sides.right[:, -1])}
    if largest * BED_SCALE < 2:
        worst = max(float(block.mean()) for block in np.array_split(size.mean(0), max(1, n // 50)))
        gap = float(np.ptp(values.mean(0)))
        envelope = envelopes.uniform_bounded(gap, BED_SCALE, largest, worst, n)
        curves.append(band("the theorem's envelope", envelope[None], True))
        numbers["Tₙ / the theorem's envelope"] = mean_ratio(running[:, -1], np.full(len(running), envelope[-1]))
    by_seed = (part.transpose(0, 1).double().numpy() for part in (run.drawn, run.exact))
    law = predictions.mean_squared_gradient_along(run.gamma, values, *by_seed)
    curves.append(band("prediction", law, True))
    numbers["Tₙ / its prediction"] = mean_ratio(running[:, -1], law[:, -1])
    return curves, numbers


def _adam(run: _Run, exact: Reference) -> tuple[list[Curve], dict[str, Interval]]:
    """Both sides of Adam's ledger as the run goes on."""
    top, n = _curvature(run, exact), len(run.gamma)
    account, start = ledger.AdamLedger.begin(run.at[0]), run.values[0]
    marks = {k for k in geometric(n, 12) if k > bounds.BURN_IN}
    left, right = [], []
    for k, gamma in enumerate(run.gamma, 1):
        account = ledger.record_step(
            account, run.drawn[k - 1], run.exact[k - 1], float(gamma), top[k - 1], start=bounds.BURN_IN
        )
        if k != bounds.BURN_IN and k not in marks:
            continue
        value, _ = exact.evaluate(bounds.unflatten(run.at[k] + ledger.offset(account), run.like))
        if k == bounds.BURN_IN:
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
    return curves, {"left / right of Adam's ledger": share(left[-1], right[-1])}


def share(left: np.ndarray, right: np.ndarray) -> Interval:
    """How much of a bound is used: the ratio of its sides' means, infinite where the bound allows less than nothing.

    Args:
        left: what is bounded, by seed.
        right: the bound, by seed.

    Returns:
        The ratio with its interval.

    >>> share(np.array([1.0, 1.0]), np.array([-2.0, -1.0]))
    Interval(value=inf, low=inf, high=inf)
    """
    return mean_ratio(left, right) if right.mean() > 0 else Interval(math.inf, math.inf, math.inf)


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
