"""The mean gradient against a trusted estimator's at the same minibatches and the same noise.

Where no exact gradient can be had, differences d_r = g_r - t_r of one's own gradient and the trusted one's still have
mean zero if and only if one's own is unbiased, and at equal noise they vary far less than either. They are tested
along directions in which faults lie: the trusted gradient (a wrong scale), its derivative in beta (a wrong weight of
the Kullback-Leibler term), the mean difference of an independent half of the draws (anything else, as a whole and by
parameter), and every coordinate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from vaebench.gates.directions import Differences, Tally
from vaebench.gates.means import MEAN_LEVEL
from vaebench.gates.verdict import Verdict, judge
from vaebench.gradients import Estimator, Loss, Objective, Parameters, loss_function, own_parameters, pathwise
from vaebench.gradients.rounding import explained, rounding_of
from vaebench.measures.moments import CHUNK, fresh, parameter_groups

STEP = 0.05  # in beta, for the derivative of the gradient
PILOT = 32  # pairs by which the trusted estimator is chosen that varies most like one's own
SMALLEST = 0.1  # of the gradient: a gate that would not find a scale as wrong as this has no power


def differences(
    model: nn.Module,
    estimator: Estimator,
    objective: Objective,
    data: Tensor,
    batch_size: int,
    count: int,
    generator: torch.Generator,
    parameters: Parameters | None = None,
    trusted: Estimator = pathwise,
    observe: Callable[[Parameters], None] | None = None,
) -> Differences:
    """Pairs of gradients at equal minibatches and noise, and what their differences say.

    Args:
        model: the model.
        estimator: under test.
        objective: the bound.
        data: (N, *event).
        batch_size: B.
        count: R, even, at least 64.
        generator: of minibatches and noise.
        parameters: where; default the model's own.
        trusted: an unbiased estimator of the same bound's gradient.
        observe: called with one's own gradients, (n, *shape) by name, a few at a time.

    Returns:
        The test; at most R differences of p numbers each are looked at, a few at a time.

    Raises:
        ValueError: if R is odd or below 64.
    """
    if count < 64 or count % 2:
        raise ValueError(f"count must be even and at least 64, got {count}.")
    mine, theirs = (Loss(model, one, objective) for one in (estimator, trusted))  # pyright: ignore[reportArgumentType]
    point = own_parameters(mine) if parameters is None else parameters
    named = _named(theirs, data, batch_size, point, max(64, count // 8), generator)
    tally = Tally(named, {name: tensor.numel() for name, tensor in point.items()})
    first, second = (vmap(grad(loss_function(loss)), (None, 0, 0)) for loss in (mine, theirs))
    draws, size = fresh(mine, data, batch_size, generator), sum(p.numel() for p in point.values())
    for half in (0, 1):
        for x, noise in draws.few_at_a_time(count // 2, size):
            trust = _flat(second(point, x, theirs.own_part(noise)))
            own = first(point, x, noise)
            tally.enter(_flat(own) - trust, float(trust.abs().max()), half)
            if observe is not None:
                observe(own)
        tally.turn()
    few = data[:batch_size]  # as many as the loss is asked for: it may need an even number
    eps = max(rounding_of(loss, few, few.new_zeros(loss.noise_shape(len(few)))) for loss in (mine, theirs))
    return tally.test(explained(eps))


def paired_mean(places: Sequence[str], found: Sequence[Differences]) -> Verdict:
    """The verdict on pairs at several points, at level 1e-8 each.

    Args:
        places: names of the points.
        found: the pairs there.

    Returns:
        The verdict on the smallest p-value, as -log10 p. Evidence has the deviation of the gradient's scale and of
        the Kullback-Leibler term's weight with their standard errors, where they are known best, how much of the
        difference each explains, and the smallest deviation that would have been found with probability 0.9.
    """
    claim = "the mean gradient is trusted pathwise's at equal noise (statistic: -log10 p)"
    return mean_at_points("gradient mean, paired", claim, SMALLEST, places, found)


def mean_at_points(gate: str, claim: str, limit: float, places: Sequence[str], found: Sequence[Differences]) -> Verdict:
    """The verdict on the mean of differences at several points, at level 1e-8 each.

    Args:
        gate: its name.
        claim: what a correct gradient does.
        limit: the largest deviation of the gradient's scale that must be found.
        places: names of the points.
        found: the differences there.

    Returns:
        As of `paired_mean`.
    """
    worst = min(range(len(found)), key=lambda i: found[i].p_value)
    lowest = found[worst].p_value
    evidence: dict[str, float | int | str] = {
        "points": ", ".join(places),
        "worst": f"{places[worst]}, along {found[worst].worst}",
        "pairs each": found[worst].count,
    }
    smallest = math.inf
    for name in ("KL weight", "scale"):
        known = [one for one in found if name in one.named]
        if known:
            best = min(known, key=lambda one, name=name: one.named[name].error)
            smallest = best.smallest(name)
            off = best.named[name]
            evidence |= {f"{name} off by": off.value, f"{name} error": off.error, f"{name} found from": smallest}
            evidence[f"{name} explains"] = off.share
    return judge(
        gate,
        claim,
        max(0.0, -math.log10(lowest)) if lowest > 0 else math.inf,
        -math.log10(MEAN_LEVEL),
        MEAN_LEVEL * len(found),
        evidence,
        smallest=smallest,
        limit=limit,
        unit="of the gradient's scale",
    )


def closest(
    model: nn.Module,
    estimator: Estimator,
    trusted: Sequence[Estimator],
    objective: Objective,
    x: Tensor,
    generator: torch.Generator,
) -> Estimator:
    """The trusted estimator from which one's own varies least at equal noise, by draws that nothing else uses.

    Args:
        model: the model.
        estimator: under test.
        trusted: unbiased estimators of the same bound's gradient.
        objective: the bound.
        x: a few examples, (B, *event).
        generator: of the noise.

    Returns:
        One of the trusted.
    """
    losses = [Loss(model, one, objective) for one in (estimator, *trusted)]  # pyright: ignore[reportArgumentType]
    point = own_parameters(losses[0])
    chunk = max(1, min(PILOT, CHUNK // sum(p.numel() for p in point.values())))
    draws = fresh(losses[0], x, len(x), generator)
    spread = dict.fromkeys(trusted, 0.0)
    for _ in range(0, PILOT, chunk):
        batch, noise = draws.take(chunk)
        mine, *others = (
            _flat(vmap(grad(loss_function(one)), (None, 0, 0))(point, batch, one.own_part(noise))) for one in losses
        )
        for one, other in zip(trusted, others, strict=True):
            spread[one] += float((mine - other).square().sum())
    return min(spread, key=spread.__getitem__)


def _flat(gradients: Parameters) -> Tensor:
    return torch.cat([g.reshape(len(g), -1) for g in gradients.values()], 1).double()


def _named(
    loss: Loss, data: Tensor, batch_size: int, point: Parameters, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Directions (2, p), each from two halves of draws of their own: the mean gradient, by block, and by beta."""
    more = Loss(loss.model, loss.estimator, replace(loss.objective, beta=loss.objective.beta + STEP))
    here, there = (vmap(grad(loss_function(one)), (None, 0, 0)) for one in (loss, more))
    draws, size, each = fresh(loss, data, batch_size, generator), sum(p.numel() for p in point.values()), count // 2
    scale, weight = (torch.zeros(2, size, dtype=torch.float64, device=data.device) for _ in range(2))
    for half in (0, 1):
        for x, noise in draws.few_at_a_time(each, size):
            gradient = _flat(here(point, x, noise))
            scale[half] += gradient.sum(0) / each
            weight[half] += (_flat(there(point, x, noise)) - gradient).sum(0) / (STEP * each)
    groups, found = parameter_groups(loss, data), {"scale": scale}
    for title, block in (("scale, encoder", groups["phi"]), ("scale, decoder", groups["theta"])):
        inside = torch.cat([torch.full((p.numel(),), float(name in block)) for name, p in point.items()])
        found[title] = scale * inside.to(scale)
    found["KL weight"] = weight * (loss.objective.beta or 1.0)
    return {name: halves for name, halves in found.items() if float(halves.prod(0).sum()) > 0}
