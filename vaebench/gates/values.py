"""The gate of the bound's value: what the code reports, against the exact value and the trusted one at equal noise."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from vaebench.gates.subject import Subject
from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided
from vaebench.gradients.estimators import Estimator, pathwise
from vaebench.gradients.loss import Loss, Parameters
from vaebench.measures.likelihood import bound_draws
from vaebench.support.skewness import reach, skewness_of, without_skewness

NATS = 0.5  # a test that finds no smaller error of the bound's value has no power
CONSTANT = 20  # draws by which a value is recognised as the bound
OWN_VALUE = frozenset({"pathwise", "analytic_kl", "exact"})  # estimators whose surrogate is the bound


def bound_value(
    subject: Subject,
    points: Sequence[Parameters],
    exact: Sequence[float] | None,
    generator: torch.Generator,
    reported: Estimator,
    trusted: nn.Module,
    draws: int = 120,
) -> Verdict:
    """The reported value of minus the bound against the exact one, and against the trusted one at equal noise.

    Args:
        subject: what is under test.
        points: parameters.
        exact: values of minus the bound there; None if unknown.
        generator: of the noise.
        reported: the surrogate that the code reports as the bound.
        trusted: the model whose bound is claimed.
        draws: M, of the noise of all data.

    Returns:
        The verdict on the largest |t| over the points, less what skewness explains, with M - 1 degrees of freedom.
    """
    scores, finest = [], math.inf
    mine = Loss(subject.model, reported, subject.objective)  # pyright: ignore[reportArgumentType]
    theirs = Loss(trusted, pathwise, subject.objective)  # pyright: ignore[reportArgumentType]
    same = reported is pathwise and trusted is subject.model
    compared = 1 if exact is None else 2
    threshold = two_sided(compared * len(points), draws - 1)
    for place, parameters in enumerate(points):
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        value = bound_draws(theirs, subject.data, draws, generator.manual_seed(seed), parameters)
        own = value if same else bound_draws(mine, subject.data, draws, generator.manual_seed(seed), parameters)
        rounding = 1e-6 * (1 + float(value.mean().abs()))
        offs = [own - value, *([own + exact[place]] if exact is not None else [])]
        for off in offs:
            error = float(off.std()) / math.sqrt(draws)
            skewness = skewness_of(off)
            beyond = off.mean().sign() * (off.mean().abs() - rounding).clamp(min=0)
            t = without_skewness(beyond / max(error, 1e-300), skewness, draws) if off.isfinite().all() else math.inf
            scores.append(float(t))
            needed = reach(threshold, float(skewness), draws)
            finest = min(finest, rounding + detectable(needed, draws - 1) * error)
    return judge(
        "bound value",
        "the reported bound is the exact one, and the trusted one at equal noise (statistic: |t|)",
        max(scores),
        threshold,
        LEVEL,
        {"points": len(points), "draws each": draws},
        smallest=finest,
        limit=NATS,
        unit="nats",
    )


def reports_a_bound(subject: Subject, reported: Estimator, trusted: nn.Module, generator: torch.Generator) -> bool:
    """Whether an estimator's own value is the bound draw by draw, perhaps up to a constant.

    Then it is taken for a claim. The values of other surrogates mean nothing, and are not judged unless they are named.

    Args:
        subject: what is under test.
        reported: whose value is looked at.
        trusted: the model whose bound is claimed.
        generator: of the noise.

    Returns:
        Whether the difference varies by less than a hundredth of the bound's own standard deviation over draws.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    losses = [Loss(model, one, subject.objective) for model, one in ((subject.model, reported), (trusted, pathwise))]  # pyright: ignore[reportArgumentType]
    x = subject.data[: max(2, subject.batch_size)]
    mine, theirs = (bound_draws(loss, x, CONSTANT, generator.manual_seed(seed)) for loss in losses)
    return bool((mine - theirs).std() <= 0.01 * theirs.std())
