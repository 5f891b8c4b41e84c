"""The gates of gradients at rest: at a few points of the run, where nothing moves."""

from collections.abc import Iterator
from math import isfinite, log
from typing import NamedTuple

import torch

from vaebench.data.sampling import with_replacement
from vaebench.gates import laws, means, paired, variances
from vaebench.gates.at_rest import Draws, gradients_at_rest, moments_at_rest, moments_of
from vaebench.gates.choices import allotted
from vaebench.gates.running import Case, Stage
from vaebench.gates.subject import Subject
from vaebench.gates.verdict import Verdict
from vaebench.gradients.loss import Parameters
from vaebench.measures.moments import Moments

PILOT = 800  # trusted gradients at a point by which it is known where a parameter's error shows


class _Rest(NamedTuple):
    """Where gradients are drawn at rest, and from what.

    Attributes:
        case: the run.
        points: parameters by the name of the place.
        generator: of all that is drawn beside the loop under test.
        seeds: of its members.
    """

    case: Case
    points: dict[str, Parameters]
    generator: torch.Generator
    seeds: Iterator[int]

    @property
    def middle(self) -> str:
        """The place at which the variance is measured."""
        return list(self.points)[len(self.points) // 2]

    def subject_at(self, place: str) -> Subject:
        """What is under test, with the parameters of a place."""
        return self.case.subject.at_parameters(self.points[place])


def of_gradients_at_rest(case: Case) -> list[Verdict]:
    """Mean, and variance against B and K, of gradients at a few points of the run."""
    device, plan = case.subject.data.device, case.plan
    rest = _Rest(case, case.run.points, plan.generator(device, "gradients"), plan.seeds("gradients"))
    case.say(Stage(f"drawing {plan.replicates} gradients at {', '.join(rest.points)}"))
    rows = variances.separate_rows(case.subject, rest.generator)
    mean, drawn = _mean_gradient(rest)
    paired_mean, independent = _beside_trusted(rest)
    in_batch = _variance_in_batch(rest, drawn, independent)
    return [rows, *mean, paired_mean, *in_batch, *_laws_in_samples(rest)]


def _mean_gradient(rest: _Rest) -> tuple[list[Verdict], Moments]:
    """The mean gradient against the exact or a trusted one, if it is held; and the moments at the middle."""
    case, places, points = rest.case, list(rest.points), list(rest.points.values())
    count, batch_size = case.plan.replicates, case.subject.batch_size
    if not case.plan.dense(size := sum(p.numel() for p in points[0].values())):
        much = f"{count} gradients of {size:,} numbers at a point"
        case.say(Stage("gradient mean", f"{much} are not held; it is judged at equal noise alone"))
        return [], moments_at_rest(rest.subject_at(rest.middle), count, rest.seeds)
    trusted = means.pathwise_of(case.trusted, case.subject)
    pilots = [means.trusted_draws(trusted, batch_size, point, PILOT, rest.generator) for point in points]
    counts = allotted(pilots, count)
    kept: list[Moments] = []

    def draws() -> Iterator[Draws]:
        for place, one in zip(places, counts, strict=True):
            found = gradients_at_rest(rest.subject_at(place), one, rest.seeds)
            if place == rest.middle:
                kept.append(found.moments())
            yield found
            del found  # before the next are drawn

    if case.exact is not None:
        verdict = means.gradient_mean(places, draws(), means.exact_at(case.exact, points)[1], rest.generator)
    else:
        theirs = (
            means.trusted_draws(trusted, batch_size, point, one, rest.generator)
            for point, one in zip(points, counts, strict=True)
        )
        verdict = means.gradient_mean_two_sample(places, draws(), theirs, rest.generator)
    return [verdict], kept[0]


def _beside_trusted(rest: _Rest) -> tuple[Verdict, Moments]:
    """The mean gradient against a trusted one at equal noise; and the moments of independent draws at the middle."""
    case, subject, count = rest.case, rest.case.subject, rest.case.plan.replicates
    case.say(Stage("gradients beside trusted ones at equal noise"))
    fresh = moments_of({name: p.unsqueeze(0) for name, p in rest.points[rest.middle].items()}, count)
    pairs = [
        paired.differences(
            subject.model, subject.estimator, subject.objective, subject.data, subject.batch_size,
            count, rest.generator, point, case.beside.estimator, fresh.add if place == rest.middle else None,
        )
        for place, point in rest.points.items()
    ]  # fmt: skip
    return paired.paired_mean(list(rest.points), pairs), fresh.moments()


def _variance_in_batch(rest: _Rest, small: Moments, independent: Moments) -> list[Verdict]:
    """The variance of the loop's gradients at two batch sizes: against each other, and against independent draws."""
    subject, count, batch_size = rest.case.subject, len(rest.case.subject.data), rest.case.subject.batch_size
    rest.case.say(Stage("variance against B and K"))
    factor = max(2, min(8, count // batch_size))
    many = factor * batch_size
    large = moments_at_rest(rest.subject_at(rest.middle), rest.case.plan.replicates // 2, rest.seeds, many)
    loop = {batch_size: small, many: large}
    smaller = dict.fromkeys(loop, 0.0)
    if subject.sampler is not with_replacement:
        smaller = {size: -variances.without_repetition(count, size) for size in loop}
    most = smaller[many]
    steeper = (most - smaller[batch_size]) / log(factor) if isfinite(most) else most
    return [
        variances.variance_in_batch(small, large, factor, steeper),
        variances.independent_draws(loop, independent, batch_size, smaller),
    ]


def _laws_in_samples(rest: _Rest) -> list[Verdict]:
    """Variance and signal-to-noise ratio against K, where a law is recorded and its conditions hold."""
    case, subject = rest.case, rest.case.subject
    late, x = rest.subject_at(list(rest.points)[-1]), subject.data[: subject.batch_size]
    if not laws.has_law(case.law, subject.objective.alpha):
        alpha = f"{subject.objective.alpha:g}"
        case.say(Stage("variance in K", f"no law is recorded for {case.law!r} at alpha = {alpha}"))
        return []
    if not laws.light(late, x, rest.generator):
        case.say(Stage("variance in K", "its law needs lighter importance weights"))
        return []
    return laws.laws_in_samples(late, x, case.law, case.plan.replicates // 2, rest.seeds)
