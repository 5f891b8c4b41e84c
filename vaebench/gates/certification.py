"""Certify a training run: all gates that apply, from gradients at rest and from one fleet."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from vaebench.data.sampling import SamplerFactory, with_replacement
from vaebench.gates import bounds, means
from vaebench.gates.applying import of_every_step, of_replayed_steps, of_reported_values, of_the_path
from vaebench.gates.choices import closest_trusted, replicates_for
from vaebench.gates.parts import require_rule, require_sampler
from vaebench.gates.planning import REPLICATES, Plan, plan_of
from vaebench.gates.reference import Reference, exact_reference
from vaebench.gates.resting import of_gradients_at_rest
from vaebench.gates.running import Case, Run, Stage, StageCallback, watch_run
from vaebench.gates.subject import Subject, Trainer, loss_of, separated
from vaebench.gates.verdict import LEVEL, Verdict
from vaebench.gradients.estimators import Estimator
from vaebench.gradients.finiteness import require_finite
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.gradients.trial import check_replicates
from vaebench.models import as_input, check_input
from vaebench.support.layers import explaining, like_parameters
from vaebench.support.repeatable import left_alone
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS, OptimizerFactory
from vaebench.training.schedules import Schedule, inverse_sqrt

AFFORDED = 2**21  # numbers that an exact gradient by quadrature keeps: 0.05 s for each of some 2,000 points
INACCURATE = 1e-3  # of the largest gradient: an integral that is off by more is no reference
FALSE_ALARM = 15 * LEVEL + 6 * means.MEAN_LEVEL  # of all gates together; see `run_gates`


def run_gates(
    model: nn.Module,
    estimator: Estimator,
    objective: Objective,
    data: Tensor,
    *,
    optimizer: str | OptimizerFactory = "sgd",
    rule: str | OptimizerFactory | None = None,
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
        optimizer: of the training loop, a name in `OPTIMIZERS` or a factory (parameters, lr) -> optimizer.
        rule: the optimizer whose steps are claimed, likewise; default the optimizer itself.
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
        progress: called with a `Stage` when something begins or is left out.

    Returns:
        The verdicts, in the order in which they were reached; `vaebench.gates.overall` says what they say together.

    Raises:
        ValueError: if there are fewer than two members, too few steps or replicates, an unknown optimizer, or
            L C > 1 at the start for SGD; if the training loop, the optimizer or the sampler fails; or if one of them,
            or a hook, changes the model or the data.
    """
    plan, say, law = plan_of(steps, members, replicates, seed), progress or _silent, law or _name(estimator)
    claimed = optimizer if rule is None else rule
    named = claimed if isinstance(claimed, str) else ""
    used, known = (OPTIMIZERS[one] if isinstance(one, str) else one for one in (optimizer, claimed))
    subject, own_value = _checked(model, estimator, objective, data, batch_size, known, used, sampler, trainer)
    if not named and subject.rule is subject.optimizer:
        why = "an optimizer of your own is held against itself alone; name the rule that it claims to be (--rule)"
        say(Stage("optimizer step beside a known rule", why))
    if reference is not None:
        _require_parameters(model, reference)
    trusted = model if reference is None else reference
    schedule = inverse_sqrt(0.03) if schedule is None else schedule
    with left_alone(model, subject.data), explaining(model, "What is under test"):
        exact = _afforded(trusted, subject, say)
        if named == "sgd" and exact is not None:
            _require_small_steps(exact, model, schedule, steps)
        plan = _held(subject, plan, budget, exact, trusted, say)
        beside = closest_trusted(subject, trusted, plan)
        run = watch_run(subject, schedule, exact, beside, plan, say)
        exact = _accurate(exact, run, say)
        if exact is None:
            say(Stage("ledgers and envelopes", "they need an exact gradient, and there is none"))
        case = Case(subject, run, plan, exact, trusted, beside, law, say)
        return [
            *of_every_step(case),
            *of_replayed_steps(case),
            *of_gradients_at_rest(case),
            *of_reported_values(case, reported or own_value),
            *of_the_path(case, schedule, named),
        ]


def _checked(
    model: nn.Module,
    estimator: Estimator,
    objective: Objective,
    data: Tensor,
    batch_size: int,
    rule: OptimizerFactory,
    optimizer: OptimizerFactory,
    sampler: SamplerFactory,
    trainer: Trainer,
) -> tuple[Subject, Estimator | None]:
    """What is under test, each part of it tried; and the value that the estimator reports, if it returns a pair."""
    data = check_input(model, data)  # pyright: ignore[reportArgumentType]
    estimator, own_value = separated(estimator, model, objective, data)
    loss = Loss(model, estimator, objective)  # pyright: ignore[reportArgumentType]
    data = as_input(check_replicates(loss, data), like_parameters(model))
    require_finite(loss, data)
    for one in [optimizer] if rule is optimizer else [rule, optimizer]:
        require_rule(one, data.device)
    require_sampler(sampler, data, batch_size)
    return Subject(model, estimator, objective, data, batch_size, rule, sampler, trainer, optimizer), own_value


def _afforded(trusted: nn.Module, subject: Subject, say: StageCallback) -> Reference | None:
    """The exact reference, or None where there is none, its gradients take too long, or are not finite at the start."""
    say(Stage("looking for an exact reference"))
    exact = exact_reference(trusted, subject.objective, subject.data)  # pyright: ignore[reportArgumentType]
    if exact is None or exact.kind == "closed form":
        return exact
    if exact.size > AFFORDED:
        why = f"one keeps {exact.size:,} numbers, at most {AFFORDED:,} are afforded; use fewer rows"
    elif exact.is_finite({name: p.detach()[None] for name, p in own_parameters(exact.loss).items()}):
        return exact
    else:
        why = "the integral behind them is not finite at every row; rescale the data, or use a smaller beta"
    say(Stage("exact gradients", why))
    return None


def _held(
    subject: Subject, plan: Plan, budget: float | None, exact: Reference | None, trusted: nn.Module, say: StageCallback
) -> Plan:
    """The plan with the replicates that a budget takes, and no more of them than are drawn of so large a net."""
    if budget is not None:
        plan = replace(plan, replicates=replicates_for(subject, budget, plan, exact, trusted))
        say(Stage(f"{plan.replicates} gradients at each point for a resolution of {budget:g}"))
    size, asked = sum(p.numel() for p in own_parameters(loss_of(subject)).values()), plan.replicates
    plan = plan.held(size)
    if plan.replicates < asked:
        why = f"no more than {plan.replicates:,} of {size:,} numbers are drawn"
        say(Stage(f"{asked - plan.replicates:,} of {asked:,} gradients at each point", why))
    return plan


def _accurate(exact: Reference | None, run: Run, say: StageCallback) -> Reference | None:
    """The reference with its error where the run ended, or None where that is too large."""
    if exact is None or run.diverged:
        return exact
    error = exact.error_at(run.like)
    if error <= INACCURATE:
        return replace(exact, error=error)
    why = f"the integral behind them is {error:.1g} of a gradient off where the run went"
    say(Stage("exact gradients", f"{why}; use smaller steps or a smaller beta"))
    return None


def _require_parameters(model: nn.Module, reference: nn.Module) -> None:
    """Refuse a reference whose bound cannot be evaluated at the model's parameters."""
    mine, theirs = ({n: tuple(p.shape) for n, p in one.named_parameters()} for one in (model, reference))
    if mine != theirs:
        name = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
        one, other = (f"of shape {found[name]}" if name in found else "not there" for found in (mine, theirs))
        raise ValueError(
            f"The reference must have the model's parameters by name and shape: {name!r} is {one} in the model, and "
            f"{other} in the reference."
        )


def _silent(stage: Stage) -> None:
    """No progress."""


def _name(estimator: Estimator) -> str:
    return getattr(estimator, "__name__", type(estimator).__name__)


def _require_small_steps(exact: Reference, model: nn.Module, schedule: Callable[[int], float], steps: int) -> None:
    """Refuse steps too large for SGD's inequalities, and ones of which rounding leaves nothing to judge."""
    last, least = schedule(steps), torch.finfo(exact.data.dtype).eps
    if not last >= least:
        raise ValueError(
            f"The last step size is {last:g}, and below {least:.1g} the rounding of parameters hides how SGD moves; "
            "use a larger C."
        )
    names = own_parameters(exact.loss)
    own = dict(model.named_parameters())
    start = {name: own[name.removeprefix("model.")].detach().unsqueeze(0) for name in names}
    if sum(p.numel() for p in start.values()) > bounds.DENSE:
        return
    curvature = exact.hessians(start)
    if not curvature.isfinite().all():
        raise ValueError(
            "The curvature of the bound is not finite at the start; use a smaller beta, or rescale the data."
        )
    top, first = float(torch.linalg.eigvalsh(curvature)[0, -1]), schedule(1)
    if not top * first <= 1:
        raise ValueError(
            f"SGD's inequalities need L C <= 1, but L = {top:.3g} at the start and C = {first:.3g} give "
            f"L C = {top * first:.3g}; use C below {1 / top:.2g}."
        )
