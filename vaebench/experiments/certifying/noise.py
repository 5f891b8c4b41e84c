"""How noisy is it? Variance and signal-to-noise ratio of the encoder's and the decoder's gradient over K and B."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vaebench.experiments.certifying.cost import grid
from vaebench.experiments.certifying.intervals import Interval
from vaebench.experiments.certifying.question import Question, Say
from vaebench.gradients import Estimator, Loss, Objective, Parameters, analytic_kl, doubly_reparameterized, pathwise
from vaebench.gradients.estimators import leave_one_out
from vaebench.measures.cost import own_clock
from vaebench.measures.intervals import snr_limits, variance_limits
from vaebench.measures.moments import Moments, Replicates, conditional, gradient_moments, parameter_groups
from vaebench.measures.probes import grad_sq, gradient_variance

GROUPS = 16  # units of the jackknife, at least
BLOCKS = {"whole": "whole", "encoder": "phi", "decoder": "theta"}


@dataclass(frozen=True)
class NoisePoint:
    """The noise of one estimator's gradient, of some parameters, on one fixed batch.

    Attributes:
        estimator: its name.
        block: "whole", "encoder" or "decoder".
        samples: K.
        batch: B.
        variance: trace of the covariance of one gradient.
        snr: |E g| over the root of that; 0 where no signal was found, with its upper limit.
        ratio: of the variance to that of `pathwise`.
        draws: gradients R it was measured with.
    """

    estimator: str
    block: str
    samples: int
    batch: int
    variance: Interval
    snr: Interval
    ratio: Interval
    draws: int


@dataclass(frozen=True)
class Noise:
    """Everything about noise.

    Attributes:
        points: by estimator, block, K and B.
        left_out: what was not measured, and why.
    """

    points: tuple[NoisePoint, ...]
    left_out: tuple[str, ...]


def rivals(question: Question, samples: int) -> dict[str, Estimator]:
    """The built-in estimators of the same bound that are no noisier than need be, and one's own."""
    known = [pathwise, *([analytic_kl] if question.objective.alpha == 1 else []), doubly_reparameterized]
    known += [leave_one_out] if samples > 1 and question.level.product else []
    return {one.__name__: one for one in known} | {question.name: question.estimator}


def measure_noise(question: Question, point: Parameters, say: Say) -> Noise:
    """Measure the noise at one setting of the parameters, given the batch: that of the samples alone.

    Args:
        question: what is asked.
        point: parameters of one's own model, by name.
        say: told what begins.

    Returns:
        Points over K and B; every estimator draws noise of its own.
    """
    found, left_out = [], []
    for samples, batch in grid(question, question.level.product):
        say(f"noise at K = {samples}, B = {batch}")
        found += _at(question, point, samples, batch, left_out)
    return Noise(tuple(found), tuple(dict.fromkeys(left_out)))


def _at(q: Question, point: Parameters, samples: int, batch: int, left_out: list[str]) -> Iterator[NoisePoint]:
    objective, x = Objective(samples, q.objective.alpha, q.objective.beta), q.data[:batch]
    moments: dict[str, tuple[Moments, int]] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for number, (name, estimator) in enumerate(rivals(q, samples).items()):
        loss = Loss(q.model, estimator, objective)  # pyright: ignore[reportArgumentType]
        try:
            draws = conditional(loss, x, q.generator(100 + number))
            count = affordable(loss, draws, point, 2 * GROUPS, q.level.draws, q.level.drawing)
            moments[name] = gradient_moments(loss, draws, count, point), count
        except (ValueError, RuntimeError) as refusal:
            left_out.append(f"noise of {name} at K = {samples}: {str(refusal).splitlines()[0]}")
            continue
        groups = groups or parameter_groups(loss, x)
    if q.name not in moments or "pathwise" not in moments:
        return
    for block, title in BLOCKS.items():
        names = groups[title]
        base, _ = variance_interval(moments["pathwise"][0], names)
        for name, (found, count) in moments.items():
            if names:
                own, _ = variance_interval(found, names)
                ratio = Interval(1.0, 1.0, 1.0) if name == "pathwise" else ratio_of(own, base)
                yield NoisePoint(name, block, samples, batch, own, snr_interval(found, names), ratio, count)


def affordable(loss: Loss, draws: Replicates, point: Parameters, least: int, most: int, seconds: float) -> int:
    """How many gradients the time allows, by the processor's time that a few take: a multiple of 16.

    Args:
        loss: the loss.
        draws: what a replicate is.
        point: where.
        least: gradients that are wanted at least.
        most: gradients that are wanted at most.
        seconds: that they may take.

    Returns:
        Between the least and the most.
    """
    tick, spent = own_clock(draws.data.device), 0.0
    for _ in range(2):  # the first call loads what it needs
        begun = tick()
        gradient_moments(loss, draws, GROUPS, point)
        spent = tick() - begun
        if spent > seconds:
            break
    wanted = min(most, max(least, int(seconds * GROUPS / max(spent, 1e-9))))
    return wanted // GROUPS * GROUPS


def variance_interval(moments: Moments, names: Sequence[str]) -> tuple[Interval, int]:
    """A trace variance with its 95 % interval, and the degrees of freedom of its error.

    Args:
        moments: of replicates.
        names: of the parameters.

    Returns:
        The interval; the groups less one.
    """
    value, freedom = gradient_variance(moments, names).value, moments.groups - 1
    if not value > 0:
        return Interval(max(value, 0.0), 0.0, max(value, 0.0)), freedom
    return Interval(value, *variance_limits(moments, names)), freedom


def ratio_of(own: Interval, base: Interval) -> Interval:
    """A ratio of two independent variances: the widths of their logarithms add as squares.

    Args:
        own: of `variance_interval`.
        base: what it is divided by.

    Returns:
        The interval.
    """
    if not (own.value > 0 and base.value > 0):
        return Interval(0.0 if base.value > 0 else 1.0, 0.0, 0.0 if base.value > 0 else math.inf)
    below = math.hypot(math.log(own.value / own.low), math.log(base.high / base.value))
    above = math.hypot(math.log(own.high / own.value), math.log(base.value / base.low))
    value = own.value / base.value
    return Interval(value, value * math.exp(-below), value * math.exp(above))


def snr_interval(moments: Moments, names: Sequence[str]) -> Interval:
    """|E g| / sqrt(tr Cov g) with its 95 % interval; never a certain zero.

    Args:
        moments: of replicates.
        names: of the parameters.

    Returns:
        The interval; its lower end is 0 where the signal is not told from none.
    """
    variance = gradient_variance(moments, names).value
    if not variance > 0:
        return Interval(math.inf, math.inf, math.inf)
    return Interval(math.sqrt(max(grad_sq(moments, names).value, 0.0) / variance), *snr_limits(moments, names))


def frontier(efforts: dict[tuple[str, int, int], tuple[float, float]]) -> list[tuple[str, int, int]]:
    """Those that no other beats in both time and variance.

    Args:
        efforts: time and variance by estimator, K and B.

    Returns:
        Their keys, the fastest first.

    >>> frontier({("a", 1, 8): (1.0, 4.0), ("b", 1, 8): (2.0, 5.0), ("c", 1, 8): (3.0, 1.0)})
    [('a', 1, 8), ('c', 1, 8)]
    """
    kept, best = [], math.inf
    for key, (_, variance) in sorted(efforts.items(), key=lambda item: item[1]):
        if variance < best:
            kept.append(key)
            best = variance
    return kept
