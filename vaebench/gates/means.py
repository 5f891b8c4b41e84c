"""Gates of the mean, without training: that of the gradient at given points, and the bound's value."""

import math
from collections.abc import Sequence

import torch
from scipy import stats
from torch import Tensor, nn

from vaebench.gates.reference import Reference
from vaebench.gates.subject import Draws, Subject, loss_of
from vaebench.gates.verdict import LEVEL, Verdict, judge, two_sided
from vaebench.gradients.estimators import Estimator, pathwise
from vaebench.gradients.loss import Loss, Parameters
from vaebench.measures.moments import fresh, gradients
from vaebench.measures.probes import bound
from vaebench.support.statistics import hotelling, hotelling_two_sample

MEAN_LEVEL = 1e-8  # of one test of a mean: nominal, low because gradients are not normal
PROJECTIONS = 64
PER_PARAMETER = 20  # replicates per parameter for Hotelling's test


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
    off = samples - mean
    off = torch.cat([off, off @ directions], 1)
    if not off.isfinite().all():
        return 0.0
    error = off.std(0) / math.sqrt(count)
    rounding = 1e-9 * float(samples.abs().max())
    t = (off.mean(0).abs() - rounding).clamp(min=0) / error.clamp(min=1e-300)
    return min(1.0, 2 * off.shape[1] * float(stats.t.sf(float(t.max()), count - 1)))


def gradient_mean(
    places: Sequence[str], draws: Sequence[Draws], exact: Sequence[Tensor], generator: torch.Generator
) -> Verdict:
    """The mean of the gradients against the exact gradient, at points where nothing moves.

    Level 1e-8 per point by Hotelling's T^2 (R >= 20 p) or Bonferroni's |t|. The p-values of Hotelling's test on
    gradients of this kind were found slightly too small in the tail, hence so low a level.

    Args:
        places: names of the points.
        draws: R gradients at each.
        exact: the exact gradients, (p,) each.
        generator: of the random projections.

    Returns:
        The verdict on the smallest p-value, as -log10 p.
    """
    found = [mean_p_value(d.flat, e.double(), generator) for d, e in zip(draws, exact, strict=True)]
    return _mean_verdict(places, found, len(draws[0].flat), "exact")


def gradient_mean_two_sample(places: Sequence[str], draws: Sequence[Draws], trusted: Sequence[Draws]) -> Verdict:
    """The mean of the gradients against that of a trusted estimator's, where no exact gradient can be had.

    Args:
        places: names of the points.
        draws: R gradients at each.
        trusted: as many of the trusted estimator.

    Returns:
        The verdict, at level 1e-8 per point; weaker than `gradient_mean` by both samples' noise.
    """
    found = []
    for mine, theirs in zip(draws, trusted, strict=True):
        first, second = mine.flat, theirs.flat
        if len(first) >= PER_PARAMETER * first.shape[1]:
            found.append(hotelling_two_sample(first, second).p_value)
            continue
        error = ((first.var(0) + second.var(0)) / len(first)).sqrt().clamp(min=1e-300)
        t = (first.mean(0) - second.mean(0)).abs() / error
        off = float(t.max()) if t.isfinite().all() else math.inf
        found.append(min(1.0, 2 * t.numel() * float(stats.t.sf(off, len(first) - 1))))
    return _mean_verdict(places, found, len(draws[0].flat), "trusted pathwise")


def _mean_verdict(places: Sequence[str], found: Sequence[float], count: int, against: str) -> Verdict:
    worst = min(range(len(found)), key=found.__getitem__)
    statistic = -math.log10(found[worst]) if found[worst] > 0 else math.inf
    return judge(
        "gradient mean",
        f"the mean gradient is the {against} gradient (statistic: -log10 p)",
        statistic,
        -math.log10(MEAN_LEVEL),
        MEAN_LEVEL * len(found),
        {"points": ", ".join(places), "worst": places[worst], "gradients each": count},
    )


def bound_value(
    subject: Subject,
    points: Sequence[Parameters],
    exact: Sequence[float],
    generator: torch.Generator,
    reported: Estimator = pathwise,
    draws: int = 300,
) -> Verdict:
    """The reported value of minus the bound against the exact one: z, the largest over the points.

    Args:
        subject: what is under test.
        points: parameters.
        exact: values of minus the bound there.
        generator: of the noise.
        reported: the surrogate that the code reports as the bound.
        draws: M, of the noise of all data.

    Returns:
        The verdict.
    """
    scores = []
    for parameters, value in zip(points, exact, strict=True):
        found = bound(loss_of(subject), subject.data, draws, generator, parameters, reported=reported)
        off = max(0.0, abs(found.value + value) - 1e-6 * (1 + abs(value)))
        scores.append(off / found.error if found.error > 0 else (math.inf if off else 0.0))
    z = max(scores) if all(math.isfinite(score) for score in scores) else math.inf
    return judge(
        "bound value",
        "the reported bound is the exact one (statistic: |z|)",
        z,
        two_sided(len(scores)),
        LEVEL,
        {"points": len(scores), "draws each": draws},
    )


def trusted_draws(
    subject: Subject, model: nn.Module, parameters: Parameters, count: int, generator: torch.Generator
) -> Draws:
    """Gradients of `pathwise` on a trusted model, drawn outside the loop, for `gradient_mean_two_sample`."""
    loss = Loss(model, pathwise, subject.objective)  # pyright: ignore[reportArgumentType]
    chunks = list(gradients(loss, fresh(loss, subject.data, subject.batch_size, generator), count, parameters))
    return Draws({name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]})


def exact_at(reference: Reference, points: Sequence[Parameters]) -> tuple[list[float], list[Tensor]]:
    """Values of minus the bound and gradients (p,) at points."""
    values, found = reference.evaluate({n: torch.stack([p[n] for p in points]) for n in points[0]})
    return values.tolist(), list(found)
