"""Certify a training run: all gates that apply, from gradients at rest and from one fleet."""

from collections.abc import Callable
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor, nn

from vaebench.data.sampling import SamplerFactory, with_replacement
from vaebench.gates import bounds, means, paired, replay, variances, walking
from vaebench.gates.choices import closest_trusted, replicates_for
from vaebench.gates.randomness import randomness
from vaebench.gates.reference import Reference, exact_reference
from vaebench.gates.running import REPLICATES, Plan, Run, StageCallback, plan_of, watch_run
from vaebench.gates.subject import Subject, Trainer, gradients_at_rest, separated
from vaebench.gates.values import OWN_VALUE, bound_value, reports_a_bound
from vaebench.gates.verdict import LEVEL, Verdict, judge
from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.gradients.trial import check_gradient
from vaebench.models import as_input, check_input
from vaebench.support.layers import like_parameters
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS, OptimizerFactory
from vaebench.training.records import Divergence
from vaebench.training.schedules import Schedule, inverse_sqrt

FALSE_ALARM = 15 * LEVEL + 6 * means.MEAN_LEVEL  # of all gates together; see `certify`


def certify(
    model: nn.Module,
    estimator: Estimator,
    objective: Objective,
    data: Tensor,
    *,
    optimizer: str | OptimizerFactory = "sgd",
    schedule: Schedule | Callable[[int], float] | None = None,
    steps: int = 2500,
    batch_size: int = 8,
    members: int = 16,
    replicates: int = REPLICATES,
    seed: int = 0,
    reference: nn.Module | None = None,
    reported: Estimator | None = None,
    law: str | None = None,
    sampler: SamplerFactory = with_replacement,
    trainer: Trainer = train,
    budget: float | None = None,
    progress: StageCallback | None = None,
) -> list[Verdict]:
    """Run every gate that applies to a model, an estimator and a training loop, all of them black boxes.

    False alarms: a correct run fails with probability at most `FALSE_ALARM` = 15 x 2e-5 + 6 x 1e-8 = 3.1e-4, by
    Bonferroni over at most 15 gates at level 2e-5 each (those with several comparisons share it) and six tests of
    mean gradients at 1e-8; the gates of replayed steps, of the optimizer's step and of divergence involve no chance.
    Levels are those of the normal and of Student's t; they hold for martingale sums of thousands of terms.

    Power: a verdict states the smallest effect that the run would have found with probability 0.9. Effects that are
    too small for it can be had by more `replicates`, `members` or `steps`; see `budget`.

    Args:
        model: where training starts; left alone.
        estimator: of the gradient; it may return a pair, the surrogate (B,) and the value (B,) that it reports.
        objective: the bound; its K, alpha and beta say which.
        data: (N, *event).
        optimizer: the rule that is claimed, a name in `OPTIMIZERS` or a factory (parameters, lr) -> optimizer.
        schedule: the step sizes that are claimed; default 0.03 / sqrt(n).
        steps: n.
        batch_size: B.
        members: S, at least 2.
        replicates: gradients per point and batch size, at least 800; a multiple of 8.
        seed: of everything random.
        reference: the model whose bound is claimed, with the same parameters by name; default the model.
        reported: the surrogate whose values the code reports as the bound; default the estimator's own values,
            where its law is one whose surrogate is the bound or they are the bound draw by draw up to a constant.
        law: the estimator whose law in K is claimed; default the estimator's name.
        sampler: of the minibatches.
        trainer: the training loop under test, with the signature of `vaebench.training.fleet.train`.
        budget: the error of the mean gradient's size, relative to it, that is to be found with probability 0.9, as
            by `replicates_for`; `replicates` are then as many as that takes.
        progress: called with a line of text when something begins or is left out.

    Returns:
        The verdicts, in the order in which they were reached; `vaebench.gates.overall` says what they say together.

    Raises:
        ValueError: if there are fewer than two members, too few steps or replicates, an unknown optimizer, or
            L C > 1 at the start for SGD.
    """
    plan = plan_of(steps, members, replicates, seed)
    say = progress or _silent
    named = optimizer if isinstance(optimizer, str) else ""
    rule = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    law = law or _name(estimator)
    data = check_input(model, data)  # pyright: ignore[reportArgumentType]
    estimator, own_value = separated(estimator, model, objective, data)
    data = as_input(check_gradient(Loss(model, estimator, objective), data), like_parameters(model))  # pyright: ignore[reportArgumentType]
    subject = Subject(model, estimator, objective, data, batch_size, rule, sampler, trainer)
    say("looking for an exact reference")
    trusted = model if reference is None else reference
    exact = exact_reference(trusted, objective, data)  # pyright: ignore[reportArgumentType]
    schedule = inverse_sqrt(0.03) if schedule is None else schedule
    if named == "sgd" and exact is not None:
        _require_small_steps(exact, model, schedule)
    if budget is not None:
        plan = replace(plan, replicates=replicates_for(subject, budget, plan, exact, trusted))
        say(f"{plan.replicates} gradients at each point for a resolution of {budget:g}")
    beside = closest_trusted(subject, trusted, plan)
    run = watch_run(subject, schedule, exact, beside, plan, say)
    if exact is None:
        say("left out: ledgers and envelopes need an exact gradient, and this model has none")
    verdicts = [_divergence(run.diverged, steps), walking.rule(run.worst), *_replayed(run, data, sampler, say)]
    verdicts += _standing(subject, exact, run, plan, trusted, beside, law, say)
    verdicts += _value(subject, exact, run, plan, trusted, reported or own_value, law, say)
    if not run.diverged and run.path is not None and exact is not None:
        verdicts += _walking(run, exact, schedule, named, plan, say)
    return verdicts


def _silent(line: str) -> None:
    """No progress."""


def _name(estimator: Estimator) -> str:
    return getattr(estimator, "__name__", type(estimator).__name__)


def _require_small_steps(exact: Reference, model: nn.Module, schedule: Callable[[int], float]) -> None:
    names = own_parameters(exact.loss)
    start = {name: model.get_parameter(name.removeprefix("model.")).detach().unsqueeze(0) for name in names}
    if sum(p.numel() for p in start.values()) > bounds.DENSE:
        return
    top, first = float(torch.linalg.eigvalsh(exact.hessians(start))[0, -1]), schedule(1)
    if not top * first <= 1:
        raise ValueError(
            f"SGD's inequalities need L C <= 1, but L = {top:.3g} at the start and C = {first:.3g} give "
            f"L C = {top * first:.3g}; use C below {1 / top:.2g}."
        )


def _divergence(diverged: tuple[Divergence, ...], steps: int) -> Verdict:
    first = min(diverged, key=lambda found: found.step, default=None)
    evidence = {} if first is None else {"step": first.step, "value": str(first.value), "seed": first.seed}
    count = float(len(diverged))
    return judge("divergence", "no member leaves the finite numbers (statistic: members)", count, 0.0, 0.0, evidence)


def _replayed(run: Run, data: Tensor, sampler: SamplerFactory, say: StageCallback) -> list[Verdict]:
    if run.replay is None or run.randomness is None:
        say("left out: replay and randomness, the training loop does not say what noise it drew")
        return []
    verdicts = [
        replay.replayed(run.replay, run.longest, next(iter(run.like.values())).dtype),
        randomness(run.randomness, sampler is with_replacement),
    ]
    if run.differences is None:
        say("left out: paired ledger, there are too many parameters to keep the differences of every step")
        return verdicts
    sizes = {name: tensor[0].numel() for name, tensor in run.like.items()}
    return [*verdicts, replay.paired_along(run.differences, sizes)]


def _standing(
    subject: Subject,
    exact: Reference | None,
    run: Run,
    plan: Plan,
    trusted: nn.Module,
    beside: Loss,
    law: str,
    say: StageCallback,
) -> list[Verdict]:
    generator, seeds = plan.generator(subject.data.device, "gradients"), plan.seeds("gradients")
    places, points = list(run.points), list(run.points.values())
    say(f"drawing {plan.replicates} gradients at {', '.join(places)}")
    draws = [gradients_at_rest(subject.at_parameters(point), plan.replicates, seeds) for point in points]
    verdicts = [variances.separate_rows(subject, generator)]
    if exact is None:
        theirs = [means.trusted_draws(subject.at_parameters(p), trusted, p, plan.replicates, generator) for p in points]
        verdicts.append(means.gradient_mean_two_sample(places, draws, theirs, generator))
    else:
        verdicts.append(means.gradient_mean(places, draws, means.exact_at(exact, points)[1], generator))
    say("gradients beside trusted ones at equal noise")
    pairs = [
        paired.differences(
            subject.model, subject.estimator, subject.objective, subject.data, subject.batch_size,
            plan.replicates, generator, point, beside.estimator,
        )
        for point in points
    ]  # fmt: skip
    verdicts.append(paired.paired_mean(places, pairs))
    middle = len(points) // 2
    here = subject.at_parameters(points[middle])
    size = subject.batch_size
    factor = max(2, min(8, len(subject.data) // size))
    say("variance against B and K")
    large = gradients_at_rest(here, plan.replicates // 2, seeds, factor * size)
    verdicts.append(variances.variance_in_batch(draws[middle], large, factor))
    verdicts.append(variances.independent_draws(here, {size: draws[middle], factor * size: large}, generator))
    if not variances.has_law(law, subject.objective.alpha):
        say(f"left out: variance in K, no law is recorded for {law!r} at alpha = {subject.objective.alpha:g}")
        return verdicts
    late, x = subject.at_parameters(points[-1]), subject.data[:size]
    if not variances.light(late, x, generator):
        say("left out: variance in K, its law needs lighter importance weights")
        return verdicts
    return verdicts + variances.laws_in_samples(late, x, law, plan.replicates // 2, seeds)


def _value(
    subject: Subject,
    exact: Reference | None,
    run: Run,
    plan: Plan,
    trusted: nn.Module,
    reported: Estimator | None,
    law: str,
    say: StageCallback,
) -> list[Verdict]:
    generator, points = plan.generator(subject.data.device, "values"), list(run.points.values())
    if reported is None and (law in OWN_VALUE or reports_a_bound(subject, subject.estimator, trusted, generator)):
        reported = subject.estimator
    if reported is None:
        say("left out: bound value, this surrogate's value is not the bound's; name what the code reports")
        return []
    exact_values = None if exact is None else means.exact_at(exact, points)[0]
    return [bound_value(subject, points, exact_values, generator, reported, trusted)]


def _walking(
    run: Run,
    exact: Reference,
    schedule: Callable[[int], float],
    optimizer: str,
    plan: Plan,
    say: StageCallback,
) -> list[Verdict]:
    path, generator = run.path, plan.generator(exact.data.device, "ledgers")
    assert path is not None
    used = path.moved if optimizer == "sgd" else path.raw
    say("the ledgers of the run")
    verdicts = [
        walking.descent(path, used),
        walking.noise_mean(path, used, generator),
        walking.successive(path, used),
        walking.members(path, used),
        walking.noise_size(path, used),
    ]
    if not all(isfinite(v.statistic) for v in verdicts) or optimizer not in {"sgd", "adam"}:
        say(f"left out: envelopes, for {optimizer or 'an optimizer of your own'} or for a path that overflows")
        return verdicts
    say("curvature along the path")
    found = bounds.curvature(path, exact, run.like)
    if optimizer == "adam":
        return [*verdicts, bounds.adam_ledger(path, exact, found, run.like)]
    values = bounds.values(path, exact, run.like)
    verdicts.append(bounds.telescoped(path, values, found, used))
    if found.hessians.shape[1]:
        verdicts.append(bounds.identity(path, values, found, used))
    product = float(found.top.max()) * schedule(1)
    if not (isinstance(schedule, Schedule) and schedule.is_inverse_sqrt) or product >= 2:
        say(f"left out: the envelope needs steps C / sqrt(n) and L C < 2, and L C = {product:.2g} here")
        return verdicts
    return [*verdicts, bounds.envelope(path, values, found, used, schedule)]
