"""Certify a training run: all gates that apply, from gradients at rest and from one fleet."""

from collections.abc import Callable
from math import isfinite

import torch
from torch import Tensor, nn

from vaebench.data.sampling import SamplerFactory, with_replacement
from vaebench.gates import bounds, means, variances, walking
from vaebench.gates.reference import Reference, exact_reference
from vaebench.gates.running import REPLICATES, Plan, Run, StageCallback, plan_of, watch_run
from vaebench.gates.subject import Subject, Trainer, gradients_at_rest
from vaebench.gates.verdict import LEVEL, Verdict, judge
from vaebench.gradients.estimators import Estimator, pathwise
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.gradients.trial import check_gradient
from vaebench.models import as_input
from vaebench.support.layers import like_parameters
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS
from vaebench.training.records import Divergence
from vaebench.training.schedules import Schedule, inverse_sqrt

FALSE_ALARM = 13 * LEVEL + 3 * means.MEAN_LEVEL  # of all gates together; see `certify`


def certify(
    model: nn.Module,
    estimator: Estimator,
    objective: Objective,
    data: Tensor,
    *,
    optimizer: str = "sgd",
    schedule: Schedule | Callable[[int], float] | None = None,
    steps: int = 2500,
    batch_size: int = 8,
    members: int = 16,
    replicates: int = REPLICATES,
    seed: int = 0,
    reference: nn.Module | None = None,
    reported: Estimator = pathwise,
    law: str | None = None,
    sampler: SamplerFactory = with_replacement,
    trainer: Trainer = train,
    progress: StageCallback | None = None,
) -> list[Verdict]:
    """Run every gate that applies to a model, an estimator and a training loop, all of them black boxes.

    False alarms: a correct run fails with probability at most `FALSE_ALARM` = 13 x 2e-5 + 3 x 1e-8 = 2.6e-4, by
    Bonferroni over at most 13 gates at level 2e-5 each (those with several comparisons share it) and three
    Hotelling tests at 1e-8; the gates of the optimizer's step and of divergence involve no chance. Levels are
    those of the normal and of Student's t; they hold for martingale sums of thousands of terms.

    Args:
        model: where training starts; left alone.
        estimator: of the gradient.
        objective: the bound; its K, alpha and beta say which.
        data: (N, *event).
        optimizer: the rule that is claimed, a name in `OPTIMIZERS`.
        schedule: the step sizes that are claimed; default 0.03 / sqrt(n).
        steps: n.
        batch_size: B.
        members: S, at least 2.
        replicates: gradients per point and batch size, at least 800; a multiple of 8.
        seed: of everything random.
        reference: the model whose bound is claimed, with the same parameters by name; default the model.
        reported: the surrogate whose values the code reports as the bound.
        law: the estimator whose law in K is claimed; default the estimator's name.
        sampler: of the minibatches.
        trainer: the training loop under test, with the signature of `vaebench.training.fleet.train`.
        progress: called with a line of text when something begins or is left out.

    Returns:
        The verdicts, in the order in which they were reached.

    Raises:
        ValueError: if there are fewer than two members, too few steps or replicates, an unknown optimizer, or
            L C > 1 at the start for SGD.
    """
    plan = plan_of(steps, members, replicates, seed)
    data = as_input(check_gradient(Loss(model, estimator, objective), data), like_parameters(model))  # pyright: ignore[reportArgumentType]
    say = progress or _silent
    subject = Subject(model, estimator, objective, data, batch_size, OPTIMIZERS[optimizer], sampler, trainer)
    say("looking for an exact reference")
    trusted = model if reference is None else reference
    exact = exact_reference(trusted, objective, data)  # pyright: ignore[reportArgumentType]
    schedule = inverse_sqrt(0.03) if schedule is None else schedule
    if optimizer == "sgd" and exact is not None:
        _require_small_steps(exact, model, schedule)
    run = watch_run(subject, schedule, exact, plan, say)
    if exact is None:
        say("left out: bound value, ledgers and envelopes need an exact gradient, and this model has none")
    verdicts = [_divergence(run.diverged, steps), walking.rule(run.worst)]
    verdicts += _standing(subject, exact, run, plan, trusted, reported, law or _name(estimator), say)
    if not run.diverged and run.path is not None and exact is not None:
        verdicts += _walking(run, exact, schedule, optimizer, plan, say)
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


def _standing(
    subject: Subject,
    exact: Reference | None,
    run: Run,
    plan: Plan,
    trusted: nn.Module,
    reported: Estimator,
    law: str,
    say: StageCallback,
) -> list[Verdict]:
    generator, seeds = plan.generator(subject.data.device), plan.seeds()
    places, points = list(run.points), list(run.points.values())
    say(f"drawing {plan.replicates} gradients at {', '.join(places)}")
    draws = [gradients_at_rest(subject.at_parameters(point), plan.replicates, seeds) for point in points]
    verdicts = [variances.separate_rows(subject, generator)]
    if exact is None:
        theirs = [means.trusted_draws(subject.at_parameters(p), trusted, p, plan.replicates, generator) for p in points]
        verdicts.append(means.gradient_mean_two_sample(places, draws, theirs))
    else:
        values, found = means.exact_at(exact, points)
        verdicts.append(means.gradient_mean(places, draws, found, generator))
        verdicts.append(means.bound_value(subject, points, values, generator, reported))
    middle = len(points) // 2
    here = subject.at_parameters(points[middle])
    size = subject.batch_size
    factor = max(2, min(8, len(subject.data) // size))
    say("variance against B and K")
    large = gradients_at_rest(here, plan.replicates // 2, seeds, factor * size)
    verdicts.append(variances.variance_in_batch(draws[middle], large, factor))
    pairs = {size: draws[middle], factor * size: large}
    verdicts.append(variances.independent_draws(here, pairs, generator))
    if not variances.has_law(law, subject.objective.alpha):
        say(f"left out: variance in K, no law is recorded for {law!r} at alpha = {subject.objective.alpha:g}")
        return verdicts
    late, x = subject.at_parameters(points[-1]), subject.data[:size]
    if not variances.light(late, x, generator):
        say("left out: variance in K, its law needs lighter importance weights")
        return verdicts
    return verdicts + variances.laws_in_samples(late, x, law, plan.replicates, seeds)


def _walking(
    run: Run,
    exact: Reference,
    schedule: Callable[[int], float],
    optimizer: str,
    plan: Plan,
    say: StageCallback,
) -> list[Verdict]:
    path, generator = run.path, plan.generator(exact.data.device)
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
        say(f"left out: envelopes, for {optimizer} or for a path that overflows")
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
