"""The gate of the mean gradient at given points, without training."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaebench.gates.at_rest import Draws
from vaebench.gates.reference import Reference
from vaebench.gates.subject import Subject
from vaebench.gates.verdict import Verdict, detectable, judge
from vaebench.gradients.estimators import pathwise
from vaebench.gradients.loss import Loss, Parameters, Tried
from vaebench.gradients.rounding import LEAST
from vaebench.gradients.trial import tried
from vaebench.measures.moments import fresh, gradients
from vaebench.support.skewness import reach, skewness_of, without_skewness
from vaebench.support.statistics import (
    hotelling,
    hotelling_two_sample,
    smallest_shift,
    student_quantile,
    student_tail,
)

MEAN_LEVEL = 1e-8  # of one test of a mean: nominal, low because gradients are not normal
PROJECTIONS = 64
PER_PARAMETER = 20  # replicates per parameter for Hotelling's test
RESOLUTION = 0.2  # of the gradient: a test that finds no smaller error of its size has no power
BLOCK = 256  # coordinates that are looked at together: what is made of them is small beside the gradients
TRUSTED = 2  # gradients of the trusted estimator, beside each of one's own
MOST_SHOWN = 6  # parameters whose resolution is shown


@dataclass(frozen=True)
class Found:
    """What is found at one point.

    Attributes:
        p_value: of the claimed mean.
        smallest: by parameter, the smallest error of the gradient's size that is found with probability 0.9,
            relative to the gradient in that parameter.
        count: gradients R.
    """

    p_value: float
    smallest: dict[str, float]
    count: int


def mean_p_value(samples: Tensor, mean: Tensor, generator: torch.Generator, rounding: float = LEAST) -> float:
    """The p-value of a known mean: Hotelling's where R >= 20 p, else the largest of |t| over many directions.

    Args:
        samples: (R, p).
        mean: (p,).
        generator: draws 64 directions for the second test, beside the coordinates.
        rounding: the part of the largest sample that it explains.

    Returns:
        The p-value, Bonferroni's in the second case.
    """
    count, size = samples.shape
    if count >= PER_PARAMETER * size:
        return hotelling(samples, mean, rounding).p_value
    directions = torch.randn(size, PROJECTIONS, generator=generator, dtype=samples.dtype, device=samples.device)
    off, slack = samples - mean, rounding * float(samples.abs().max())
    return _largest_t(off, off @ mean, float(mean.norm()), directions, slack)


def _largest_t(off: Tensor, along: Tensor, length: float, directions: Tensor, slack: float) -> float:
    """Bonferroni's p-value of the largest |t|, less rounding: of (R, p) in coordinates, on (p, m) and along a mean."""
    count, largest = len(off), 0.0
    parts = [(block, 1.0) for block in off.split(BLOCK, 1)]
    parts += [(off @ directions, directions.norm(dim=0)), (along.unsqueeze(1), length)]
    for part, lengths in parts:
        if not part.isfinite().all():
            return 0.0
        error, mean = part.std(0) / math.sqrt(count), part.mean(0)
        t = mean.sign() * (mean.abs() - slack * lengths).clamp(min=0) / error.clamp(min=1e-300)
        largest = max(largest, float(without_skewness(t, skewness_of(part), count).max()))
    columns = off.shape[1] + directions.shape[1] + 1
    return min(1.0, 2 * columns * float(student_tail(largest, count - 1)))


def smallest_by_parameter(
    samples: Tensor, mean: Tensor, sizes: dict[str, int], others: int = 0, rounding: float = LEAST
) -> dict[str, float]:
    """What `mean_p_value` finds with probability 0.9 at level 1e-8: an error of one parameter's gradient, in size.

    Args:
        samples: of what has the tested mean, (R, p).
        mean: the gradient that errors are relative to, (p,).
        sizes: of the parameters by name.
        others: directions tested beside coordinates, where R < 20 p.
        rounding: the part of the largest sample that it explains.

    Returns:
        By name, relative to the gradient in that parameter; infinite where that is zero.
    """
    count, size = samples.shape
    if not samples.isfinite().all():
        return dict.fromkeys(sizes, math.inf)
    dense = count >= PER_PARAMETER * size
    threshold = -student_quantile(MEAN_LEVEL / (2 * (size + others + 1)), count - 1)
    slack = rounding * float(samples.abs().max())
    found, start = {}, 0
    for name, width in sizes.items():
        direction = torch.zeros_like(mean)
        direction[start : start + width] = mean[start : start + width]
        start += width
        length = float(direction.norm())
        if dense:
            shift = smallest_shift(samples, direction, MEAN_LEVEL)
        else:
            along = samples @ direction
            error = float(along.std()) / max(length, 1e-300) / math.sqrt(count)
            shift = detectable(reach(threshold, float(skewness_of(along)), count), count - 1) * error
        found[name] = (shift + slack) / length if length > 0 else math.inf
    return found


def gradient_mean(
    places: Sequence[str], draws: Iterable[Draws], exact: Sequence[Tensor], generator: torch.Generator
) -> Verdict:
    """The mean of the gradients against the exact gradient, at points where nothing moves.

    Level 1e-8 per point by Hotelling's T^2 (R >= 20 p) or Bonferroni's |t|, both less what skewness explains.

    Args:
        places: names of the points.
        draws: R gradients at each; those of an iterator are taken and let go of point by point.
        exact: the exact gradients, (p,) each.
        generator: of the random projections.

    Returns:
        The verdict on the smallest p-value, as -log10 p.
    """
    each = iter(draws)
    found = [_beside_exact(next(each), truth.double(), generator) for truth in exact]
    return _mean_verdict(places, found, "exact")


def _beside_exact(mine: Draws, truth: Tensor, generator: torch.Generator) -> Found:
    samples = mine.flat
    smallest = smallest_by_parameter(samples, truth, mine.sizes, PROJECTIONS, mine.rounding)
    return Found(mean_p_value(samples, truth, generator, mine.rounding), smallest, mine.count)


def gradient_mean_two_sample(
    places: Sequence[str], draws: Iterable[Draws], trusted: Iterable[Draws], generator: torch.Generator
) -> Verdict:
    """The mean of the gradients against that of a trusted estimator's, where no exact gradient can be had.

    Args:
        places: names of the points.
        draws: R gradients at each; those of an iterator are taken and let go of point by point.
        trusted: as many of the trusted estimator, or means of a few of its gradients.
        generator: of the random projections, where R < 20 p.

    Returns:
        The verdict, at level 1e-8 per point; weaker than `gradient_mean` by both samples' noise.
    """
    pairs = iter(draws), iter(trusted)
    found = [_beside_trusted(*map(next, pairs), generator) for _ in places]  # pyright: ignore[reportCallIssue]
    return _mean_verdict(places, found, "trusted pathwise")


def _beside_trusted(mine: Draws, theirs: Draws, generator: torch.Generator) -> Found:
    first, second = mine.flat, theirs.flat
    off, mean, size = first - second, second.mean(0), first.shape[1]
    smallest = smallest_by_parameter(off, mean, mine.sizes, PROJECTIONS, mine.rounding)
    if len(first) >= PER_PARAMETER * size:
        return Found(hotelling_two_sample(first, second, mine.rounding).p_value, smallest, mine.count)
    directions = torch.randn(size, PROJECTIONS, generator=generator, dtype=first.dtype, device=first.device)
    slack, half = mine.rounding * float(first.abs().max()), len(second) // 2
    along = torch.cat([off[:half] @ second[half:].mean(0), off[half:] @ second[:half].mean(0)])  # independent
    return Found(_largest_t(off, along, float(mean.norm()), directions, slack), smallest, mine.count)


def _mean_verdict(places: Sequence[str], found: Sequence[Found], against: str) -> Verdict:
    worst = min(range(len(found)), key=lambda i: found[i].p_value)
    lowest = found[worst].p_value
    names, counts = list(found[0].smallest), [one.count for one in found]
    best = {name: min(one.smallest[name] for one in found) for name in names}
    evidence: dict[str, float | int | str] = {
        "points": ", ".join(places),
        "worst": places[worst],
        "gradients each": counts[0] if len(set(counts)) == 1 else ", ".join(map(str, counts)),
    }
    for place, one in zip(places, found, strict=True):
        evidence[f"finds at {place}"] = ", ".join(f"{name} {one.smallest[name]:.2g}" for name in names[:MOST_SHOWN])
    return judge(
        "gradient mean",
        f"the mean gradient is the {against} gradient (statistic: -log10 p)",
        -math.log10(lowest) if lowest > 0 else math.inf,
        -math.log10(MEAN_LEVEL),
        MEAN_LEVEL * len(found),
        evidence,
        smallest=max(best.values()),
        limit=RESOLUTION,
        unit="of the gradient in its worst parameter, at the point that shows it best",
    )


def pathwise_of(model: nn.Module, subject: Subject) -> Tried:
    """The loss by `pathwise` of a trusted model, tried once on the subject's data, for `trusted_draws`."""
    return tried(Loss(model, pathwise, subject.objective), subject.data)  # pyright: ignore[reportArgumentType]


def trusted_draws(
    trusted: Tried, batch_size: int, parameters: Parameters, count: int, generator: torch.Generator
) -> Draws:
    """Gradients of a trusted loss, drawn outside the loop, for `gradient_mean_two_sample`.

    Args:
        trusted: as `pathwise_of` gives it.
        batch_size: B.
        parameters: where.
        count: of one's own gradients R.
        generator: of minibatches and noise.

    Returns:
        R means of two gradients each: these take a tenth of the time of one's own, and their noise counts as much.
    """
    replicates = fresh(trusted.loss, trusted, batch_size, generator)
    found = Draws.joined(list(gradients(trusted.loss, replicates, count, parameters)))
    for _ in range(TRUSTED - 1):
        seen = 0
        for chunk in gradients(trusted.loss, replicates, count, parameters):
            rows = slice(seen, seen := seen + len(next(iter(chunk.values()))))
            for name, more in chunk.items():
                found.gradients[name][rows] += more
    return Draws({name: total / TRUSTED for name, total in found.gradients.items()})


def exact_at(reference: Reference, points: Sequence[Parameters]) -> tuple[list[float], list[Tensor]]:
    """Values of minus the bound and gradients (p,) at points, by the finest rule."""
    values, found = (reference.finer or reference).evaluate({n: torch.stack([p[n] for p in points]) for n in points[0]})
    return values.tolist(), list(found)
