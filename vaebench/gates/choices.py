"""What a certificate chooses by itself: the trusted estimator to stand beside, and how many gradients to draw."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vaebench.gates import means, paired
from vaebench.gates.at_rest import Draws, gradients_at_rest
from vaebench.gates.planning import FEWEST_REPLICATES, MOST_REPLICATES, Plan
from vaebench.gates.reference import Reference
from vaebench.gates.subject import Subject
from vaebench.gradients.estimators import (
    Estimator,
    analytic_kl,
    doubly_reparameterized,
    leave_one_out,
    pathwise,
    score_function,
)
from vaebench.gradients.loss import Loss


def closest_trusted(subject: Subject, trusted: nn.Module, plan: Plan) -> Loss:
    """The trusted loss from whose gradients the subject's differ least at equal noise, itself aside.

    Args:
        subject: what is under test.
        trusted: the model whose bound is claimed.
        plan: of the run.

    Returns:
        The loss.
    """
    objective = subject.objective
    known: list[Estimator] = [pathwise, doubly_reparameterized]
    known += [analytic_kl] if objective.alpha == 1 else []
    known += [score_function, *([leave_one_out] if objective.samples > 1 else [])]
    others = [one for one in known if one is not subject.estimator]
    generator, x = plan.generator(subject.data.device, "closest estimator"), subject.data[: subject.batch_size]
    best = paired.closest(subject.model, subject.estimator, others, objective, x, generator)
    return Loss(trusted, best, objective)  # pyright: ignore[reportArgumentType]


def replicates_for(subject: Subject, resolution: float, plan: Plan, exact: Reference | None, trusted: nn.Module) -> int:
    """How many gradients at the start it takes to find an error of the mean gradient's size with probability 0.9.

    The smallest error falls as one over the root of the number of gradients; a pilot says where from.

    Args:
        subject: what is under test.
        resolution: the error, relative to the gradient, in the parameter where it is found last.
        plan: of the run; its replicates are the pilot's.
        exact: the reference, or None.
        trusted: the model whose bound is claimed.

    Returns:
        At least 800, a multiple of 8.

    Raises:
        ValueError: if the resolution is not positive, or would take more than 2^20 gradients.
    """
    if not resolution > 0:
        raise ValueError(f"budget must be positive, the relative error of the gradient to be found, got {resolution}.")
    generator, point = plan.generator(subject.data.device, "pilot"), _start(subject.model)
    draws = gradients_at_rest(subject, plan.replicates, plan.seeds("pilot"))
    if exact is None:
        loss = means.pathwise_of(trusted, subject)
        theirs = means.trusted_draws(loss, subject.batch_size, point, plan.replicates, generator)
        pilot = means.gradient_mean_two_sample(["start"], [draws], [theirs], generator)
    else:
        pilot = means.gradient_mean(["start"], [draws], means.exact_at(exact, [point])[1], generator)
    smallest = pilot.smallest or 0.0
    times = smallest / resolution
    wanted = plan.replicates * times * times
    if not wanted <= MOST_REPLICATES:
        had = smallest * (plan.replicates / MOST_REPLICATES) ** 0.5
        raise ValueError(
            f"A resolution of {resolution:g} would take {wanted:.2g} gradients at each point, more than "
            f"{MOST_REPLICATES}; with these the resolution is {had:.2g}."
        )
    return max(FEWEST_REPLICATES, -(-int(wanted + 1) // 8) * 8)


def allotted(pilots: Sequence[Draws], count: int) -> list[int]:
    """How many gradients to draw at each point, so that an error is found in every parameter at one of them.

    Where a parameter's gradient is small beside its noise at the first point, the last may show an error of it, and the
    other way round. What both get is shared between them in quarters, so that the parameter that is found last is found
    best; points between are left alone.

    Args:
        pilots: gradients at the points that nothing is tested with.
        count: R, what each gets before.

    Returns:
        As many numbers, with the sum of before.
    """
    if len(pilots) == 1:
        return [count]
    size, found = sum(pilots[0].sizes.values()), []
    for one in pilots:
        smallest = means.smallest_by_parameter(one.flat, one.flat.mean(0), one.sizes, means.PROJECTIONS)
        found.append({name: value * math.sqrt(one.count) for name, value in smallest.items()})
    fewest = means.PER_PARAMETER * size if count >= means.PER_PARAMETER * size else 0

    def shared(quarters: int) -> list[int]:
        first = quarters * count // 4
        return [first, *[count] * (len(pilots) - 2), 2 * count - first]

    def worst(counts: list[int]) -> float:
        return max(min(one[name] / math.sqrt(n) for one, n in zip(found, counts, strict=True)) for name in found[0])

    ways = [shared(quarters) for quarters in (4, 3, 5, 2, 6, 1, 7)]
    return min((way for way in ways if min(way) >= fewest), key=worst)


def _start(model: nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": p.detach() for name, p in model.named_parameters()}
