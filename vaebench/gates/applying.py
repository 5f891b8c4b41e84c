"""Which gates apply to a run, one function for each source of evidence; what is left out is said, with the reason."""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite, log
from typing import NamedTuple

import torch
from torch import nn

from vaebench.data.sampling import with_replacement
from vaebench.gates import bounds, correlations, laws, means, paired, replay, variances, walking
from vaebench.gates.at_rest import Draws, gradients_at_rest, moments_at_rest, moments_of
from vaebench.gates.choices import allotted
from vaebench.gates.planning import Plan
from vaebench.gates.randomness import randomness
from vaebench.gates.reference import Reference
from vaebench.gates.running import Run, Stage, StageCallback
from vaebench.gates.subject import Subject
from vaebench.gates.values import OWN_VALUE, bound_value, reports_a_bound
from vaebench.gates.verdict import Verdict, judge
from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, Parameters
from vaebench.measures.moments import Moments
from vaebench.training.schedules import Schedule

PILOT = 800  # trusted gradients at a point by which it is known where a parameter's error shows


class Case(NamedTuple):
    """A run under test, with everything that its gates are judged by.

    Attributes:
        subject: what is under test.
        run: what was kept of its training.
        plan: how much is measured.
        exact: the exact gradient of the claimed bound, or None.
        trusted: the model whose bound is claimed.
        beside: a loss whose gradient has the claimed mean, for differences at equal noise.
        law: the estimator whose law in K is claimed.
        say: told what begins and what is left out.
    """

    subject: Subject
    run: Run
    plan: Plan
    exact: Reference | None
    trusted: nn.Module
    beside: Loss
    law: str
    say: StageCallback


def of_every_step(case: Case) -> list[Verdict]:
    """Whether a member diverged, and whether each step is that of the claimed optimizer."""
    diverged = case.run.diverged
    first = min(diverged, key=lambda found: found.step, default=None)
    evidence = {} if first is None else {"step": first.step, "value": str(first.value), "seed": first.seed}
    claim = "no member leaves the finite numbers (statistic: members)"
    return [judge("divergence", claim, float(len(diverged)), 0.0, 0.0, evidence), walking.rule(case.run.worst)]


def of_replayed_steps(case: Case) -> list[Verdict]:
    """Whether the loop used the estimator's own gradients, fresh minibatches and fresh noise."""
    run = case.run
    if run.replay is None or run.randomness is None:
        silent = "the training loop does not say what noise it drew"
        why = silent if run.finite else "no step before the run diverged was replayed"
        case.say(Stage("replay and randomness", why))
        return []
    verdicts = [
        replay.replayed(run.replay, run.longest, next(iter(run.like.values())).dtype),
        randomness(run.randomness, case.subject.sampler is with_replacement),
    ]
    if run.differences is None:
        case.say(Stage("paired ledger", "there are too many parameters to keep the differences of every step"))
        return verdicts
    sizes = {name: tensor[0].numel() for name, tensor in run.like.items()}
    return [*verdicts, replay.paired_along(run.differences, sizes)]


def of_gradients_at_rest(case: Case) -> list[Verdict]:
    """Mean, and variance against B and K, of gradients at a few points of the run."""
    subject, plan = case.subject, case.plan
    generator, seeds = plan.generator(subject.data.device, "gradients"), plan.seeds("gradients")
    places, points = list(case.run.points), list(case.run.points.values())
    middle, size = len(points) // 2, sum(p.numel() for p in points[0].values())
    here, batch_size = subject.at_parameters(points[middle]), subject.batch_size
    case.say(Stage(f"drawing {plan.replicates} gradients at {', '.join(places)}"))
    verdicts = [variances.separate_rows(subject, generator)]
    if plan.dense(size):
        pilots = [
            means.trusted_draws(subject.at_parameters(point), case.trusted, point, PILOT, generator) for point in points
        ]
        counts = allotted(pilots, plan.replicates)
        kept: list[Moments] = []

        def draws() -> Iterator[Draws]:
            for point, count in zip(points, counts, strict=True):
                found = gradients_at_rest(subject.at_parameters(point), count, seeds)
                if point is points[middle]:
                    kept.append(found.moments())
                yield found
                del found  # before the next are drawn

        verdicts.append(_gradient_mean(case, places, points, draws(), counts, generator))
        (small,) = kept
    else:
        much = f"{plan.replicates} gradients of {size:,} numbers at a point"
        case.say(Stage("gradient mean", f"{much} are not held; it is judged at equal noise alone"))
        small = moments_at_rest(here, plan.replicates, seeds)
    case.say(Stage("gradients beside trusted ones at equal noise"))
    fresh = moments_of({name: p.unsqueeze(0) for name, p in points[middle].items()}, plan.replicates)
    pairs = [
        paired.differences(
            subject.model, subject.estimator, subject.objective, subject.data, batch_size,
            plan.replicates, generator, point, case.beside.estimator, fresh.add if place == middle else None,
        )
        for place, point in enumerate(points)
    ]  # fmt: skip
    verdicts.append(paired.paired_mean(places, pairs))
    case.say(Stage("variance against B and K"))
    factor = max(2, min(8, len(subject.data) // batch_size))
    large = moments_at_rest(here, plan.replicates // 2, seeds, factor * batch_size)
    loop = {batch_size: small, factor * batch_size: large}
    smaller = dict.fromkeys(loop, 0.0)
    if subject.sampler is not with_replacement:
        smaller = {size: -variances.without_repetition(len(subject.data), size) for size in loop}
    most = smaller[factor * batch_size]
    steeper = (most - smaller[batch_size]) / log(factor) if isfinite(most) else most
    verdicts.append(variances.variance_in_batch(small, large, factor, steeper))
    verdicts.append(variances.independent_draws(loop, fresh.moments(), batch_size, smaller))
    late, x = subject.at_parameters(points[-1]), subject.data[:batch_size]
    if not laws.has_law(case.law, subject.objective.alpha):
        alpha = f"{subject.objective.alpha:g}"
        case.say(Stage("variance in K", f"no law is recorded for {case.law!r} at alpha = {alpha}"))
    elif not laws.light(late, x, generator):
        case.say(Stage("variance in K", "its law needs lighter importance weights"))
    else:
        verdicts += laws.laws_in_samples(late, x, case.law, plan.replicates // 2, seeds)
    return verdicts


def _gradient_mean(
    case: Case,
    places: Sequence[str],
    points: Sequence[Parameters],
    draws: Iterator[Draws],
    counts: Sequence[int],
    generator: torch.Generator,
) -> Verdict:
    if case.exact is not None:
        return means.gradient_mean(places, draws, means.exact_at(case.exact, points)[1], generator)
    theirs = (
        means.trusted_draws(case.subject.at_parameters(point), case.trusted, point, count, generator)
        for point, count in zip(points, counts, strict=True)
    )
    return means.gradient_mean_two_sample(places, draws, theirs, generator)


def of_reported_values(case: Case, reported: Estimator | None) -> list[Verdict]:
    """Whether the values that the code reports are the bound, where it reports any.

    Args:
        case: the run.
        reported: the surrogate whose values are reported; None where nothing was named.

    Returns:
        The verdict, or none.
    """
    subject = case.subject
    generator, points = case.plan.generator(subject.data.device, "values"), list(case.run.points.values())
    if reported is None and (
        case.law in OWN_VALUE or reports_a_bound(subject, subject.estimator, case.trusted, generator)
    ):
        reported = subject.estimator
    if reported is None:
        why = "what the estimator returns is not the bound; it need not be, its gradient counts"
        case.say(Stage("bound value", why))
        return []
    exact_values = None if case.exact is None else means.exact_at(case.exact, points)[0]
    return [bound_value(subject, points, exact_values, generator, reported, case.trusted)]


def of_the_path(case: Case, schedule: Callable[[int], float], optimizer: str) -> list[Verdict]:
    """Ledgers and envelopes of the steps that were watched beside the exact gradient.

    Args:
        case: the run.
        schedule: claimed step sizes.
        optimizer: the claimed rule's name in `OPTIMIZERS`, or "".

    Returns:
        The verdicts; none if there is no exact gradient, or a member diverged.
    """
    path, exact, like, say = case.run.path, case.exact, case.run.like, case.say
    if case.run.diverged or path is None or exact is None:
        return []
    used = path.moved if optimizer == "sgd" else path.raw
    say(Stage("the ledgers of the run"))
    verdicts = [
        walking.descent(path, used, exact.error),
        walking.noise_mean(path, used, case.plan.generator(exact.data.device, "ledgers"), exact.error),
        correlations.successive(path, used),
        correlations.members(path, used),
        walking.noise_size(path, used),
    ]
    if not all(isfinite(v.statistic) for v in verdicts) or optimizer not in {"sgd", "adam"}:
        say(Stage("envelopes", f"there are none for {optimizer or 'an optimizer of your own'}, or the path overflows"))
        return verdicts
    say(Stage("curvature along the path"))
    found = bounds.curvature(path, exact, like)
    if optimizer == "adam":
        return [*verdicts, bounds.adam_ledger(path, exact, found, like)]
    values = bounds.values(path, exact, like)
    verdicts.append(bounds.telescoped(path, values, found, used))
    if found.hessians.shape[1]:
        verdicts.append(bounds.identity(path, values, found, used))
    product = float(found.top.max()) * schedule(1)
    if not (isinstance(schedule, Schedule) and schedule.is_inverse_sqrt) or product >= 2:
        say(Stage("envelope", f"it needs steps C / sqrt(n) and L C < 2, and L C = {product:.2g} here"))
        return verdicts
    return [*verdicts, bounds.envelope(path, values, found, used, schedule)]
