"""A black box against a trusted gradient of the bound that it claims: contract, value, mean gradient, 1/B."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.experiments.blackboxes.drawing import Point, Seeds, draw, draw_point, moments
from vaebench.experiments.blackboxes.protocol import Arrays, BlackBox, Claim
from vaebench.gates.means import MEAN_LEVEL
from vaebench.gates.paired import mean_at_points
from vaebench.gates.variances import variance_in_batch
from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided
from vaebench.measures.moments import Moments
from vaebench.support.layers import explaining
from vaebench.support.skewness import Skewed, reach

TILES = 4
FEW, MOST = 208, 3328  # gradients for the fall of the variance, at least and at most
WARM, RATE = 200, 1e-3  # steps and step size of Adam that lead away from the start
ROUNDING = 1e-6  # of a value in nats
SHOWN = 0.2  # of the gradient: a test that would not find a bias as large as this has no power


class Judged(NamedTuple):
    """What draws say of a box.

    Attributes:
        verdicts: on its value, its mean gradient and the fall of its variance.
        pairs: moments of its gradients and of the trusted ones by B, on the rows and on the rows four times over.
        left_out: what could not be judged, and why.
    """

    verdicts: list[Verdict]
    pairs: dict[int, tuple[Moments, Moments]]
    left_out: list[str]


def judge_box(claim: Claim, x: np.ndarray, tiles: int, count: int, few: int, seeds: Seeds) -> Judged:
    """Draw gradients of the box and trusted ones, and run the gates that chance has part in.

    At the box's parameters, and where some steps of Adam with the trusted gradient lead: where a net starts, a wrong
    weight of the Kullback-Leibler term is small.

    Args:
        claim: the box and what it is held against.
        x: rows.
        tiles: how many times over the rows make a batch of the gradients whose mean is judged; a mean over the rows is
            the same, with less noise.
        count: gradients R of either at each point, a multiple of 16, at least 208.
        few: gradients of either by which the fall of the variance is judged, likewise.
        seeds: number -> so many seeds, others at every call.

    Returns:
        Verdicts and moments.
    """
    start, left_out, rows = claim.box.parameters, [], np.concatenate([x] * tiles)
    points = [draw_point(claim, start, rows, count, seeds, "the start")]
    title = f"{WARM} steps of Adam"
    try:
        points.append(draw_point(claim, warm(claim, x, seeds(WARM)), rows, count, seeds, title))
    except ValueError as refusal:
        left_out.append(f"your model after {title}: {str(refusal).splitlines()[0]}")
    verdicts, pairs = [value(points), mean_gradient(points)], {}
    batches = [x, np.concatenate([x] * TILES)] if claim.whole else [x]
    try:
        for batch in batches:
            own, trusted = (moments(one, start, batch, seeds(few)) for one in (claim.box, claim.trusted))
            pairs[len(batch)] = own, trusted
        if claim.whole:
            verdicts.append(variance_in_batch(pairs[len(x)][0], pairs[TILES * len(x)][0], TILES))
        else:
            left_out.append("your model: the fall of the variance as 1/B: it takes as many rows, however many x has")
    except ValueError as refusal:
        left_out.append(f"your model at B = {TILES * len(x)}: {str(refusal).splitlines()[0]}")
    return Judged(verdicts, pairs, left_out)


def warm(claim: Claim, x: np.ndarray, seeds: Sequence[int]) -> Arrays:
    """Where as many steps of Adam as there are seeds lead from the box's parameters with the trusted gradient.

    Args:
        claim: the trusted box and the start.
        x: rows.
        seeds: one a step.

    Returns:
        Parameters of the same names and precisions.

    Raises:
        ValueError: if they are not finite.
    """
    start = {name: np.asarray(value) for name, value in claim.box.parameters.items()}
    leaves = {name: torch.tensor(value, dtype=torch.float64) for name, value in start.items()}
    adam = torch.optim.Adam(list(leaves.values()), lr=RATE)
    for seed in seeds:
        with explaining(nn.Module(), "The trusted gradient"):
            found = claim.trusted.value_and_gradient(_arrays(leaves, start), x, seed)[1]
        for name, leaf in leaves.items():
            leaf.grad = torch.tensor(found[name], dtype=torch.float64)
        adam.step()
    if not all(leaf.isfinite().all() for leaf in leaves.values()):
        raise ValueError("the parameters leave the finite numbers.")
    return _arrays(leaves, start)


def _arrays(leaves: Mapping[str, Tensor], like: Arrays) -> Arrays:
    return {name: leaf.numpy().astype(like[name].dtype) for name, leaf in leaves.items()}


def contract(box: BlackBox, x: np.ndarray, seeds: Sequence[int]) -> Verdict:
    """Equal seeds, equal results; fresh noise; a finite gradient of every parameter; nothing given is changed.

    Args:
        box: the box.
        x: rows.
        seeds: two.

    Returns:
        The verdict on the number of broken clauses; chance has no part.
    """
    before = {name: np.array(value) for name, value in box.parameters.items()}
    rows = np.array(x)
    state = torch.get_rng_state()
    values, gradients = draw(box, box.parameters, x, [seeds[0], seeds[1], seeds[0]])
    sizes = [int(np.size(value)) for value in before.values()]
    parts = gradients[:2].abs().sum(0).split(sizes)
    missing = [name for name, part in zip(before, parts, strict=True) if not (part.isfinite().all() and part.any())]
    broken = {
        "unequal at equal seeds": not (values[0] == values[2] and torch.equal(gradients[0], gradients[2])),
        "no fresh noise": torch.equal(gradients[0], gradients[1]),
        "x or parameters changed": not (
            np.array_equal(rows, x) and all(np.array_equal(v, box.parameters[name]) for name, v in before.items())
        ),
        "torch's generator moved": not torch.equal(state, torch.get_rng_state()),
        "no gradient reaches": bool(missing),
    }
    evidence: dict[str, str | int] = {"broken": ", ".join(name for name, hit in broken.items() if hit) or "nothing"}
    evidence |= {"no gradient reaches": ", ".join(missing)} if missing else {}
    claim = "equal seeds give equal results, others fresh noise, every parameter a gradient (statistic: broken clauses)"
    return judge("contract", claim, float(sum(broken.values())), 0.5, 0.0, evidence)


def value(points: Sequence[Point]) -> Verdict:
    """The mean reported value against the trusted one's: |t|, less what skewness explains, the largest of all points.

    Args:
        points: what was drawn there.

    Returns:
        The verdict; the evidence is that of the worst point, the smallest effect that of the best.
    """
    claim, freedom = "the reported loss is minus the bound (statistic: |t|)", len(points[0].mine) - 1
    critical, found, smallest = two_sided(len(points), freedom), [], []
    for point in points:
        own, other = Skewed.mean(point.mine), Skewed.mean(point.trusted)
        off = own.less(other)
        beyond = math.copysign(max(0.0, abs(off.value) - ROUNDING * (1 + abs(other.value))), off.value)
        score = off._replace(value=beyond).score() if math.isfinite(off.value) else math.inf
        evidence = {"point": point.title, "value": own.value, "trusted": other.value}
        found.append((score, evidence | {"off": off.value, "error": off.error}))
        smallest.append(detectable(reach(critical, off.skewness, 1), freedom) * off.error)
    score, evidence = max(found, key=lambda one: one[0])
    return judge(
        "bound value", claim, score, critical, LEVEL, evidence,
        smallest=min(smallest), unit="nats",
    )  # fmt: skip


def mean_gradient(points: Sequence[Point]) -> Verdict:
    """The mean gradient against the trusted one's at every point; see `draw_point`.

    Args:
        points: what was drawn there.

    Returns:
        The verdict on the smallest p-value.
    """
    claim = "the mean gradient is the trusted bound's (statistic: -log10 p)"
    lost = [point.title for point in points if not point.finite]
    if lost:
        return judge("gradient mean", claim, math.inf, -math.log10(MEAN_LEVEL), MEAN_LEVEL, {"not finite": lost[0]})
    return mean_at_points(
        "gradient mean", claim, SHOWN, [point.title for point in points], [point.apart for point in points]
    )
