"""Gates of the variance, without training: against the batch size, and independent draws."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vaebench.gates.subject import Subject
from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided
from vaebench.gradients.estimators import draw_noise
from vaebench.measures.moments import Moments
from vaebench.measures.probes import gradient_variance, skewed_variance
from vaebench.support.repeatable import preserved
from vaebench.support.skewness import Skewed, reach

SLOPE = 0.05  # what a log-log slope may be off by beside its error
STEEPEST = 0.5  # of a slope: a test that finds no smaller error of it has no power
RELATIVE = 1.0  # the same of a variance
CONSTANT, UNITS = 1e-12, 16  # of the mean square, and in its last place: a variance up to it is rounding
ROWS = 16  # rows that are looked at one by one


def log_ratio(one: Moments, other: Moments, names: Sequence[str] | None = None) -> Skewed:
    """The logarithm of the ratio of two trace variances, of independent gradients.

    Returns:
        The number. Rare large gradients may be missing from the smaller set, whose error is then too small: the error
        is no smaller than if each had the other's spread. Of two sets without variance nothing is known: 0, and an
        infinite error.
    """
    if all(_constant(moments, names) for moments in (one, other)):
        return Skewed(0.0, math.inf, 0.0)
    first, second = (skewed_variance(moments, names).log() for moments in (one, other))
    found, odds = first.less(second), one.count / other.count
    error = max(found.error, math.hypot(first.error * odds**0.5, second.error / odds**0.5))
    return found._replace(error=error, skewness=found.skewness * (found.error / error) ** 3 if error > 0 else 0.0)


def _constant(moments: Moments, names: Sequence[str] | None) -> bool:
    """Whether gradients vary by no more than rounding, their own or that of the sums of their squares."""
    names = tuple(moments.squares if names is None else names)
    squares = sum(float(moments.squares[name].sum()) for name in names) / moments.count
    kinds = [torch.finfo(moments.mean[name].dtype) for name in names]
    rounding = max([CONSTANT, *(UNITS * kind.eps for kind in kinds)]) * squares
    return gradient_variance(moments, names).value <= max([rounding, *(kind.tiny for kind in kinds)])


def without_repetition(rows: int, batch_size: int) -> float:
    """The log of (N - B) / (N - 1), by which the variance is smaller, at most, if no minibatch holds a row twice.

    Returns:
        The logarithm, at most 0; minus infinity where a minibatch holds all rows.

    >>> round(without_repetition(9, 5), 4)  # 1 / 2
    -0.6931
    """
    return min(0.0, math.log((rows - batch_size) / (rows - 1))) if rows > batch_size else -math.inf


def variance_in_batch(small: Moments, large: Moments, factor: float, steeper: float = 0.0) -> Verdict:
    """The trace variance of the gradient falls as 1/B, exactly: examples and their noise are independent.

    Args:
        small: moments of gradients from minibatches of B.
        large: moments of gradients from minibatches of `factor` B.
        factor: of the batch sizes.
        steeper: how far below -1 the slope may be, for minibatches that may hold no example twice.

    Returns:
        The verdict on the slope's distance from -1, or from what lies between -1 and that.
    """
    fall, run = log_ratio(large, small), math.log(factor)
    slope, error = fall.value / run, fall.error / run
    freedom = min(small.groups, large.groups) - 1
    threshold = reach(two_sided(1, freedom), fall.skewness, 1)
    known = not math.isinf(error)
    return judge(
        "variance in B",
        "the gradient's variance falls as 1/B (statistic: distance of the slope from -1)",
        max(slope + 1, -(slope + 1) - steeper) if known else 0.0,
        SLOPE + (threshold * error if known else 0.0),
        LEVEL,
        {"slope": slope, "error": error, "factor": factor},
        smallest=SLOPE + detectable(threshold, freedom) * error,
        limit=STEEPEST,
        unit="of the slope",
    )


def independent_draws(
    loop: dict[int, Moments], fresh: Moments, size: int, smaller: Mapping[int, float] | None = None
) -> Verdict:
    """The loop's gradients vary as those of minibatches and noise drawn afresh, outside the loop.

    Of rows that are independent, and of separate surrogates, the variance falls as 1/B exactly, so that fresh
    gradients of one batch size are a control of all.

    Args:
        loop: moments of the loop's gradients by batch size.
        fresh: moments of gradients of minibatches drawn with replacement, and of noise, at the same parameters.
        size: their batch size.
        smaller: by batch size, how far below 0 the difference of log variance may be, for minibatches that may hold
            no example twice; default 0.

    Returns:
        The verdict on the largest |t| of the differences of log variance, less what skewness explains.
    """
    scores, found = {}, []
    freedom = min(one.groups for one in (fresh, *loop.values())) - 1
    threshold = two_sided(len(loop), freedom)
    for batch_size, mine in loop.items():
        off = log_ratio(mine, fresh)
        off = off._replace(value=off.value + math.log(batch_size / size))
        if off.value < 0:
            off = off._replace(value=min(0.0, off.value + (smaller or {}).get(batch_size, 0.0)))
        scores[batch_size] = off.score()
        found.append(detectable(reach(threshold, off.skewness, 1), freedom) * off.error)
    worst = max(scores, key=scores.__getitem__)
    return judge(
        "independent draws",
        "gradients vary as those of independent minibatches and noise do (statistic: |t| of the log variance)",
        scores[worst],
        threshold,
        LEVEL,
        {"batch sizes": ", ".join(map(str, loop)), "worst": worst},
        smallest=math.expm1(min(700.0, max(found))),
        limit=RELATIVE,
        unit="of the variance",
    )


def separate_rows(subject: Subject, generator: torch.Generator) -> Verdict:
    """The surrogate of an example depends on no other example, nor on another's noise: else 1/B does not hold.

    Args:
        subject: what is under test.
        generator: of the noise.

    Returns:
        The verdict on the largest relative change; it involves no chance.
    """
    model, size = subject.model, min(subject.batch_size, len(subject.data))
    x = subject.data[:size]
    given = model, x, subject.objective, generator, subject.estimator
    noise, other = (draw_noise(*given) for _ in range(2))  # pyright: ignore[reportArgumentType]
    parameters, off = [p for p in model.parameters() if p.requires_grad], 0.0

    def gradient(row: int, x: Tensor, noise: Tensor) -> Tensor:
        with torch.enable_grad(), preserved(model):
            surrogate = subject.estimator(model, x, noise, subject.objective)[row]  # pyright: ignore[reportArgumentType]
        found = torch.autograd.grad(surrogate, parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in found])

    for row in range(min(size, ROWS)):
        keep = torch.arange(size, device=x.device) == row
        mine = gradient(row, x, noise)
        noises = torch.where(keep[:, None], noise, other)
        others = torch.where(keep.view(-1, *[1] * (x.ndim - 1)), x, x.roll(1, 0))
        changed = torch.stack([gradient(row, x, noises), gradient(row, others, noise)])
        off = max(off, float((changed - mine).abs().max().double() / mine.abs().max().double().clamp(min=1e-300)))
    allowed = 1e5 * torch.finfo(x.dtype).eps
    claim = "an example's gradient depends on no other example (statistic: largest relative change)"
    return judge("separate rows", claim, off, allowed, 0.0, {"batch size": size})
