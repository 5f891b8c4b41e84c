"""Which gates apply to a run, one function for each source of evidence; what is left out is said, with the reason."""

from collections.abc import Callable
from math import isfinite

from vaebench.data.sampling import with_replacement
from vaebench.gates import bounds, correlations, means, replay, walking
from vaebench.gates.randomness import randomness
from vaebench.gates.running import Case, Stage
from vaebench.gates.values import OWN_VALUE, bound_value, reports_a_bound
from vaebench.gates.verdict import Verdict, judge
from vaebench.gradients.estimators import Estimator
from vaebench.training.schedules import Schedule


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
