"""Does training keep the guarantee? Theory's curves on a bed, and the decay of |grad f|^2 on one's own model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vaebench.experiments.certifying import beds
from vaebench.experiments.certifying.cost import CONFIDENCE, Interval
from vaebench.experiments.certifying.noise import affordable
from vaebench.experiments.certifying.question import Question, Say
from vaebench.experiments.certifying.right import BED_SCALE, OWN, REFUSALS, trusted_estimators
from vaebench.gates import bounds
from vaebench.gates.path import Path
from vaebench.gates.reference import Reference, exact_reference
from vaebench.gates.running import Plan, Run, watch_run
from vaebench.gates.subject import Subject
from vaebench.gradients import Estimator, Loss, pathwise
from vaebench.measures.moments import fresh, gradient_moments
from vaebench.measures.probes import grad_sq
from vaebench.theory import envelopes, ledger, predictions
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS
from vaebench.training.records import geometric
from vaebench.training.schedules import inverse_sqrt

STEPS = 1000  # of the run on the bed, at most
FEW = 16  # examples where every step's exact gradient is a quadrature
PER_DECADE = 3  # checkpoints of one's own training
PROBE = 32  # examples in a minibatch of the gradient's measurement
LEVEL = 0.01  # of the test that tells two decays apart


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


@dataclass(frozen=True)
class Decay:
    """|grad f|^2 on one's own model, averaged over checkpoints after the start, beside a built-in estimator's.

    Attributes:
        built_in: name of the estimator that it is compared with.
        ratio: one's own over the built-in's, with its 95 % interval, paired by seed.
        p_value: two-sided, of no difference.
        seeds: S.
        steps: of training.
        diverged: seeds that left the finite numbers, one's own and the built-in's.
    """

    built_in: str
    ratio: Interval
    p_value: float
    seeds: int
    steps: int
    diverged: tuple[int, int]

    @property
    def finding(self) -> str:
        """"lower", "higher" or "not told apart" at level 0.01."""
        if not self.p_value < LEVEL:
            return "not told apart"
        return "lower" if self.ratio.value < 1 else "higher"


@dataclass(frozen=True)
class Guarantee:
    """Everything about training.

    Attributes:
        bed: where theory is exact; empty if there is no such bed for this bound.
        theory: T_n, or Adam's ledger, and what bounds or predicts it.
        numbers: T_n over its bound and over its prediction at the end, by name.
        decay: on one's own model.
        curves: |grad f|^2 there.
        left_out: what was not measured, and why.
    """

    bed: str
    theory: tuple[Curve, ...]
    numbers: dict[str, Interval]
    decay: Decay | None
    curves: tuple[Curve, ...]
    left_out: tuple[str, ...]


def measure_guarantee(question: Question, say: Say) -> Guarantee:
    """Train on a bed and on one's own model.

    Args:
        question: what is asked.
        say: told what begins.

    Returns:
        Curves and their comparison.
    """
    left_out: list[str] = []
    bed, theory, numbers = "", (), {}
    say("the run on a bed, beside theory")
    try:
        bed, theory, numbers = _on_bed(question, left_out)
    except REFUSALS as refusal:
        left_out.append(f"theory's curves: {str(refusal).splitlines()[0] if str(refusal) else type(refusal).__name__}")
    say(f"training {OWN}, {question.level.seeds} seeds for {question.level.training} steps, twice")
    decay, curves = _on_own(question)
    return Guarantee(bed, tuple(theory), numbers, decay, tuple(curves), tuple(left_out))


def _on_bed(q: Question, left_out: list[str]) -> tuple[str, list[Curve], dict[str, Interval]]:
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
    curves = [_band("Tₙ, measured", running), _band("telescoped bound", sides.right, True)]
    numbers = {"left / right of the telescoped bound": _ratio(sides.left[:, -1], sides.right[:, -1])}
    largest, mean = max(block.mean() for block in np.array_split(size.mean(0), max(1, n // 50))), values.mean(0)
    if float(top.max()) * BED_SCALE < 2:
        gap = float(mean.max() - mean.min())
        envelope = envelopes.uniform_bounded(gap, BED_SCALE, float(top.max()), float(largest), n)
        curves.append(_band("the theorem's envelope", envelope[None], True))
        numbers["Tₙ / the theorem's envelope"] = _ratio(running[:, -1], np.full(len(running), envelope[-1]))
    if found.hessians.shape[1]:
        law = predictions.mean_squared_gradient(gamma, values, *_curved(path, found, noise))
        curves.append(_band("prediction", law, True))
        numbers["Tₙ / its prediction"] = _ratio(running[:, -1], law[:, -1])
    return curves, numbers


def _curved(path: Path, found: bounds.Curvature, noise: Tensor) -> tuple[np.ndarray, np.ndarray]:
    n = path.prefix
    segment = torch.bucketize(torch.arange(n), torch.tensor(found.marks), right=True) - 1
    hessians = ((found.hessians[:-1] + found.hessians[1:]) / 2)[segment]
    return tuple(  # pyright: ignore[reportReturnType]
        (v * (hessians @ v.unsqueeze(-1)).squeeze(-1)).sum(-1).T.double().cpu().numpy()
        for v in (noise, path.exact[:n])
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
        _band("preconditioned squared gradients", np.array(left).T, steps=steps),
        _band("Adam's ledger allows", np.array(right).T, True, steps),
    ]
    return curves, {"left / right of Adam's ledger": _ratio(left[-1], right[-1])}


def _band(label: str, rows: np.ndarray, line: bool = False, steps: Sequence[int] | None = None) -> Curve:
    """Mean and Student band over seeds, (S, n), at some sixty steps equally spaced in the logarithm."""
    kept = [step for step in geometric(rows.shape[1], 24) if step] if steps is None else list(steps)
    shown = rows[:, [step - 1 for step in kept]] if steps is None else rows
    mean = shown.mean(0)
    wide = np.zeros_like(mean)
    if not line and len(shown) > 1:
        wide = stats.t.isf((1 - CONFIDENCE) / 2, len(shown) - 1) * shown.std(0, ddof=1) / math.sqrt(len(shown))
    return Curve(label, tuple(kept), *(tuple(map(float, part)) for part in (mean, mean - wide, mean + wide)))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> Interval:
    """A ratio of means over seeds, paired, with Student's interval by linearisation."""
    value = float(top.mean() / bottom.mean())
    off = (top - value * bottom) / bottom.mean()
    wide = float(stats.t.isf((1 - CONFIDENCE) / 2, len(off) - 1) * off.std(ddof=1) / math.sqrt(len(off)))
    return Interval(value, value - wide, value + wide)


def _on_own(q: Question) -> tuple[Decay | None, list[Curve]]:
    built_in = trusted_estimators(q)[0]
    name = built_in.__name__
    rows, lost, steps = {}, {}, [step for step in geometric(q.level.training, PER_DECADE) if step]
    for title, estimator in ((q.name, q.estimator), (name, built_in)):
        rows[title], lost[title] = _decay(q, estimator, steps)
    curves = [_band(title, table, steps=steps) for title, table in rows.items() if len(table) > 1]
    own, other = rows[q.name], rows[name]
    both = np.isfinite(own).all(1) & np.isfinite(other).all(1)
    if both.sum() < 2:
        return None, curves
    top, bottom = own[both].mean(1), other[both].mean(1)
    apart = top - bottom
    p_value = float(stats.ttest_1samp(apart, 0.0).pvalue) if apart.std() > 0 else 1.0
    return Decay(name, _ratio(top, bottom), p_value, int(both.sum()), steps[-1], (lost[q.name], lost[name])), curves


def _decay(q: Question, estimator: Estimator, steps: Sequence[int]) -> tuple[np.ndarray, int]:
    """|grad f|^2 by seed and checkpoint, (S, c), measured with `pathwise`; and how many seeds diverged."""
    measured = Loss(q.model, pathwise, q.objective)  # pyright: ignore[reportArgumentType]
    seeds = [q.seed * 1000 + number for number in range(q.level.seeds)]
    count, rows, lost = 0, [], 0
    loop = train(
        q.model, estimator, q.objective, q.data, OPTIMIZERS[q.optimizer], inverse_sqrt(q.scale), steps[-1],
        q.batch_size, seeds, checkpoints=(0, *steps),
    )  # fmt: skip
    for number, checkpoint in enumerate(loop):
        draws = fresh(measured, q.data, min(PROBE, len(q.data)), q.generator(1000 + number))
        if not number:
            count = affordable(measured, draws, checkpoint.state.member(0), q.level)
            continue
        found = checkpoint.state.each(
            lambda point, draws=draws, count=count: grad_sq(gradient_moments(measured, draws, count, point)).value
        )
        rows.append(found.numpy())
        lost = len(checkpoint.diverged)
    missing = [np.full(len(seeds), math.nan)] * (len(steps) - len(rows))
    return np.array([*rows, *missing]).T, lost
