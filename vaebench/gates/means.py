"""The gate of the mean gradient at given points, without training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaebench.gates.at_rest import Draws
from vaebench.gates.reference import Reference
from vaebench.gates.subject import Subject
from vaebench.gates.verdict import Verdict, detectable, judge
from vaebench.gradients.estimators import pathwise
from vaebench.gradients.loss import Loss, Parameters
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
MOST_SHOWN = 6  # parameters whose resolution is shown


@dataclass(frozen=True)
class Found:
    """What is found at one point.

    Attributes:
        p_value: of the claimed mean.
        smallest: by parameter, the smallest error of the gradient's size that is found with probability 0.9,
            relative to the gradient in that parameter.
    """

    p_value: float
    smallest: dict[str, float]


def mean_p_value(samples: Tensor, mean: Tensor, generator: torch.Generator) -> float:
    """The p-value of a known mean: Hotelling's where R >= 20 p, else the largest of |t| over many directions.

    Args:
        samples: (R, p).
        mean: (p,).
        generator: draws 64 directions for the second test, beside the coordinates.

    Returns:
        The p-value, Bonferroni's in the second case.
    """
    count, size = samples.shape
    if count >= PER_PARAMETER * size:
        return hotelling(samples, mean).p_value
    directions = torch.randn(size, PROJECTIONS, generator=generator, dtype=samples.dtype, device=samples.device)
    return _largest_t(samples - mean, mean.unsqueeze(1), directions, float(samples.abs().max()))


def _largest_t(off: Tensor, own: Tensor, directions: Tensor, scale: float) -> float:
    """Bonferroni's p-value of the largest |t| of differences (R, p), in coordinates and along directions (p, m)."""
    count = len(off)
    off = torch.cat([off, off @ directions, off @ own], 1)
    if not off.isfinite().all():
        return 0.0
    error = off.std(0) / math.sqrt(count)
    mean = off.mean(0)
    t = mean.sign() * (mean.abs() - 1e-9 * scale).clamp(min=0) / error.clamp(min=1e-300)
    largest = float(without_skewness(t, skewness_of(off), count).max())
    return min(1.0, 2 * off.shape[1] * float(student_tail(largest, count - 1)))


def smallest_by_parameter(samples: Tensor, mean: Tensor, sizes: dict[str, int], others: int = 0) -> dict[str, float]:
    """What `mean_p_value` finds with probability 0.9 at level 1e-8: an error of one parameter's gradient, in size.

    Args:
        samples: of what has the tested mean, (R, p).
        mean: the gradient that errors are relative to, (p,).
        sizes: of the parameters by name.
        others: directions tested beside coordinates, where R < 20 p.

    Returns:
        By name, relative to the gradient in that parameter; infinite where that is zero.
    """
    count, size = samples.shape
    if not samples.isfinite().all():
        return dict.fromkeys(sizes, math.inf)
    dense = count >= PER_PARAMETER * size
    threshold = -student_quantile(MEAN_LEVEL / (2 * (size + others + 1)), count - 1)
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
        found[name] = shift / length + 1e-9 if length > 0 else math.inf
    return found


def gradient_mean(
    places: Sequence[str], draws: Sequence[Draws], exact: Sequence[Tensor], generator: torch.Generator
) -> Verdict:
    """The mean of the gradients against the exact gradient, at points where nothing moves.

    Level 1e-8 per point by Hotelling's T^2 (R >= 20 p) or Bonferroni's |t|, both less what skewness explains.

    Args:
        places: names of the points.
        draws: R gradients at each.
        exact: the exact gradients, (p,) each.
        generator: of the random projections.

    Returns:
        The verdict on the smallest p-value, as -log10 p.
    """
    found = []
    for mine, truth in zip(draws, exact, strict=True):
        samples, mean = mine.flat, truth.double()
        smallest = smallest_by_parameter(samples, mean, mine.sizes, PROJECTIONS)
        found.append(Found(mean_p_value(samples, mean, generator), smallest))
    return _mean_verdict(places, found, draws, "exact")


def gradient_mean_two_sample(
    places: Sequence[str], draws: Sequence[Draws], trusted: Sequence[Draws], generator: torch.Generator
) -> Verdict:
    """The mean of the gradients against that of a trusted estimator's, where no exact gradient can be had.

    Args:
        places: names of the points.
        draws: R gradients at each.
        trusted: as many of the trusted estimator.
        generator: of the random projections, where R < 20 p.

    Returns:
        The verdict, at level 1e-8 per point; weaker than `gradient_mean` by both samples' noise.
    """
    found = []
    for mine, theirs in zip(draws, trusted, strict=True):
        first, second = mine.flat, theirs.flat
        mean, size = second.mean(0), first.shape[1]
        smallest = smallest_by_parameter(first - second, mean, mine.sizes, PROJECTIONS)
        if len(first) >= PER_PARAMETER * size:
            found.append(Found(hotelling_two_sample(first, second).p_value, smallest))
            continue
        directions = torch.randn(size, PROJECTIONS, generator=generator, dtype=first.dtype, device=first.device)
        p_value = _largest_t(first - second, mean.unsqueeze(1), directions, float(first.abs().max()))
        found.append(Found(p_value, smallest))
    return _mean_verdict(places, found, draws, "trusted pathwise")


def _mean_verdict(places: Sequence[str], found: Sequence[Found], draws: Sequence[Draws], against: str) -> Verdict:
    worst = min(range(len(found)), key=lambda i: found[i].p_value)
    lowest = found[worst].p_value
    names = list(found[0].smallest)
    best = {name: min(one.smallest[name] for one in found) for name in names}
    evidence: dict[str, float | int | str] = {
        "points": ", ".join(places),
        "worst": places[worst],
        "gradients each": draws[0].count,
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


def trusted_draws(
    subject: Subject, model: nn.Module, parameters: Parameters, count: int, generator: torch.Generator
) -> Draws:
    """Gradients of `pathwise` on a trusted model, drawn outside the loop, for `gradient_mean_two_sample`."""
    loss = Loss(model, pathwise, subject.objective)  # pyright: ignore[reportArgumentType]
    replicates = fresh(loss, subject.data, subject.batch_size, generator)
    return Draws.joined(list(gradients(loss, replicates, count, parameters)))


def exact_at(reference: Reference, points: Sequence[Parameters]) -> tuple[list[float], list[Tensor]]:
    """Values of minus the bound and gradients (p,) at points."""
    values, found = reference.evaluate({n: torch.stack([p[n] for p in points]) for n in points[0]})
    return values.tolist(), list(found)
