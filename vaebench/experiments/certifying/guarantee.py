"""Does training keep the guarantee? Theory's curves on a bed, and the decay of |grad f|^2 on one's own model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from vaebench.experiments.certifying.intervals import Interval, mean_ratio
from vaebench.experiments.certifying.noise import GROUPS, affordable
from vaebench.experiments.certifying.question import Question, Say
from vaebench.experiments.certifying.right import OWN, REFUSALS, trusted_estimators
from vaebench.experiments.certifying.theory_run import Curve, band, on_bed
from vaebench.gradients import Estimator, Loss, pathwise
from vaebench.measures.moments import fresh, gradient_moments
from vaebench.measures.probes import grad_sq
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS
from vaebench.training.records import geometric
from vaebench.training.schedules import inverse_sqrt

PER_DECADE = 3  # checkpoints of one's own training
PROBE = 32  # examples in a minibatch of the gradient's measurement
LEVEL = 0.01  # of the test that tells two decays apart


@dataclass(frozen=True)
class Decay:
    """|grad f|^2 on one's own model, averaged over checkpoints after the start, beside a built-in estimator's.

    Attributes:
        built_in: name of the estimator that it is compared with.
        ratio: one's own over the built-in's, with its 95 % interval, paired by seed; NaN of fewer than two seeds.
        p_value: two-sided, of no difference; NaN likewise.
        seeds: S, with which both stayed finite.
        steps: of training.
        diverged: seeds that left the finite numbers, one's own and the built-in's.
        trained: seeds of either.
    """

    built_in: str
    ratio: Interval
    p_value: float
    seeds: int
    steps: int
    diverged: tuple[int, int]
    trained: int

    @property
    def compared(self) -> bool:
        """Whether two seeds or more were left to compare."""
        return self.seeds > 1

    @property
    def finding(self) -> str:
        """Whether one's own is "lower", "higher" or "not told apart" at level 0.01."""
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
    decay: Decay
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
        bed, theory, numbers = on_bed(question, left_out)
    except REFUSALS as refusal:
        left_out.append(f"theory's curves: {str(refusal).splitlines()[0] if str(refusal) else type(refusal).__name__}")
    say(f"training {OWN}, {question.level.seeds} seeds for {question.level.training} steps, twice")
    decay, curves = _on_own(question)
    return Guarantee(bed, tuple(theory), numbers, decay, tuple(curves), tuple(left_out))


def _on_own(q: Question) -> tuple[Decay, list[Curve]]:
    built_in = trusted_estimators(q)[0]
    name = built_in.__name__
    rows, lost, steps = {}, {}, [step for step in geometric(q.level.training, PER_DECADE) if step]
    for title, estimator in ((q.name, q.estimator), (name, built_in)):
        rows[title], lost[title] = _decay(q, estimator, steps)
    curves = [band(title, table, steps=steps) for title, table in rows.items() if len(table) > 1]
    own, other = rows[q.name], rows[name]
    return compare_decays(name, own, other, steps[-1], (lost[q.name], lost[name])), curves


def compare_decays(built_in: str, own: np.ndarray, other: np.ndarray, steps: int, diverged: tuple[int, int]) -> Decay:
    """The comparison of |grad f|^2 by seed and checkpoint, (S, c) each, of those seeds with which all is finite.

    Args:
        built_in: name of the second.
        own: of the first.
        other: of the second.
        steps: of training.
        diverged: seeds of either that left the finite numbers.

    Returns:
        The comparison.
    """
    both = np.isfinite(own).all(1) & np.isfinite(other).all(1)
    count, trained = int(both.sum()), len(own)
    if count < 2:
        return Decay(built_in, Interval(math.nan, math.nan, math.nan), math.nan, count, steps, diverged, trained)
    top, bottom = own[both].mean(1), other[both].mean(1)
    ratio, p_value = mean_ratio(top, bottom), paired_p_value(top - bottom)
    return Decay(built_in, ratio, p_value, count, steps, diverged, trained)


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
            count = affordable(
                measured, draws, checkpoint.state.member(0), GROUPS, q.level.draws, q.level.drawing / q.level.seeds
            )
            continue
        found = checkpoint.state.each(
            lambda point, draws=draws, count=count: grad_sq(gradient_moments(measured, draws, count, point)).value
        )
        rows.append(found.numpy())
        lost = len(checkpoint.diverged)
    missing = [np.full(len(seeds), math.nan)] * (len(steps) - len(rows))
    return np.array([*rows, *missing]).T, lost


def paired_p_value(apart: np.ndarray) -> float:
    """Student's two-sided p-value of no difference, from differences by seed (S,).

    Args:
        apart: the differences.

    Returns:
        The p-value; 1 where all differences are zero.

    >>> round(paired_p_value(np.array([1.0, 2.0, 3.0])), 4)
    0.0742
    """
    error = float(apart.std(ddof=1)) / math.sqrt(len(apart))
    if not error > 0:
        return 0.0 if apart.any() else 1.0
    return float(2 * stats.t.sf(abs(float(apart.mean())) / error, len(apart) - 1))
