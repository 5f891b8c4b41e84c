"""Gradients of a black box beside trusted ones at one setting of the parameters, a few of them held at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.experiments.blackboxes.protocol import STEP, Arrays, BlackBox, Claim
from vaebench.gates.directions import Differences, Tally
from vaebench.gates.means import PER_PARAMETER
from vaebench.measures.moments import CHUNK, Gathering, Moments
from vaebench.support.layers import explaining
from vaebench.support.statistics import hotelling_two_sample
from vaebench.support.texts import shown

FLAT = 1e-6  # of the largest number: a difference up to it is rounding
MOST = 256  # gradients held at a time
PILOT = 8  # of so many trusted gradients one more is drawn, for the directions and units of the test
Seeds = Callable[[int], list[int]]  # a number -> so many seeds, others at every call


def draw(box: BlackBox, parameters: Arrays, x: np.ndarray, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Values (R,) and flat gradients (R, p) at so many seeds.

    Args:
        box: the box.
        parameters: where.
        x: rows.
        seeds: R of them.

    Returns:
        Both, in float64.

    Raises:
        ValueError: if the box fails, or returns something else than a number and a gradient of every parameter.
    """
    values, gradients = [], []
    for seed in seeds:
        with explaining(nn.Module(), "The black box"):
            result = box.value_and_gradient(parameters, x, seed)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            raise ValueError(
                f"value_and_gradient must return a loss and a gradient by the parameters' names, got {shown(result)}."
            )
        value, found = result
        if np.size(value) != 1:
            raise ValueError(f"The loss must be one number, the mean over rows, got shape {np.shape(value)}.")
        for name, parameter in parameters.items():
            if name not in found or np.shape(found[name]) != np.shape(parameter):
                got = np.shape(found[name]) if name in found else "nothing"
                raise ValueError(f"The gradient of {name!r} must have shape {np.shape(parameter)}, got {got}.")
        values.append(float(np.asarray(value).item()))
        gradients.append(np.concatenate([np.ravel(found[name]) for name in parameters]))
    return torch.tensor(values, dtype=torch.float64), torch.tensor(np.array(gradients), dtype=torch.float64)


def few_at_a_time(
    box: BlackBox, parameters: Arrays, x: np.ndarray, seeds: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `draw` returns, of a few seeds after the other.

    Args:
        box: the box.
        parameters: where.
        x: rows.
        seeds: R of them.

    Yields:
        Values (n,) and gradients (n, p), the n adding up to R.
    """
    chunk = max(1, min(MOST, CHUNK // sum(np.size(value) for value in parameters.values())))
    for start in range(0, len(seeds), chunk):
        yield draw(box, parameters, x, seeds[start : start + chunk])


def moments(box: BlackBox, parameters: Arrays, x: np.ndarray, seeds: Sequence[int]) -> Moments:
    """First and second moments of a box's gradients, all parameters under the name "all".

    Args:
        box: the box.
        parameters: where.
        x: rows.
        seeds: R of them, a multiple of 16.

    Returns:
        The moments.
    """
    gathering = None
    for _, found in few_at_a_time(box, parameters, x, seeds):
        gathering = gathering or Gathering({"all": found}, len(seeds))
        gathering.add({"all": found})
    assert gathering is not None
    return gathering.moments()


@dataclass(frozen=True)
class Point:
    """What was drawn at one setting of the parameters.

    Attributes:
        title: of the point.
        mine: values of the box, (R,).
        trusted: as many trusted ones.
        apart: what the differences of both gradients say.
        finite: whether all of the box's numbers were.
    """

    title: str
    mine: Tensor
    trusted: Tensor
    apart: Differences
    finite: bool


def draw_point(claim: Claim, at: Arrays, x: np.ndarray, count: int, seeds: Seeds, title: str) -> Point:
    """Draw independent gradients of the box and trusted ones, and test that the means are one.

    Along directions in which faults lie, in units of each coordinate's noise (`Tally`): the trusted gradient, its
    derivative in the weight of the Kullback-Leibler term, the mean difference of the first half, every coordinate;
    and, where R >= 20 p, as a whole by Hotelling's test. Directions and units come from draws of their own.

    Args:
        claim: the box and what it is held against.
        at: the parameters.
        x: rows.
        count: gradients R of either, a multiple of 16, at least 208.
        seeds: where they come from.
        title: of the point.

    Returns:
        What was drawn and found.
    """
    sizes = {name: int(np.size(value)) for name, value in at.items()}
    tally = _directions(claim, at, x, seeds(max(64, count // PILOT)), sizes)
    values, kept, finite = ([], []), ([], []), True
    whole = count >= PER_PARAMETER * sum(sizes.values())
    for half in (0, 1):
        runs = [few_at_a_time(box, at, x, seeds(count // 2)) for box in (claim.box, claim.trusted)]
        for drawn in zip(*runs, strict=True):
            for place, (loss, found) in enumerate(drawn):
                values[place].append(loss)
                if whole:
                    kept[place].append(found)
            own, trusted = (found for _, found in drawn)
            finite = finite and bool(own.isfinite().all())
            tally.enter(own - trusted, float(trusted.abs().max()), half)
        tally.turn()
    apart = tally.test(FLAT)
    if whole:
        apart = _with_whole(apart, torch.cat(kept[0]), torch.cat(kept[1]))
    mine, trusted = (torch.cat(part) for part in values)
    return Point(title, mine, trusted, apart, finite)


def _directions(claim: Claim, at: Arrays, x: np.ndarray, seeds: list[int], sizes: dict[str, int]) -> Tally:
    """The test along the mean trusted gradient and its derivative in the weight, in units of the noise."""
    each, size = len(seeds) // 2, sum(sizes.values())
    scale, weight = (torch.zeros(2, size, dtype=torch.float64) for _ in range(2))
    square, largest = torch.zeros(size, dtype=torch.float64), 0.0
    for half in (0, 1):
        chosen = seeds[half * each : (half + 1) * each]
        for _, found in few_at_a_time(claim.trusted, at, x, chosen):
            scale[half] += found.sum(0) / each
            square += found.square().sum(0) / (2 * each)
            largest = max(largest, float(found.abs().max()))
        if claim.heavier is not None:
            for _, found in few_at_a_time(claim.heavier, at, x, chosen):
                weight[half] += found.sum(0) / (each * STEP)
    if claim.heavier is not None:
        weight = (weight - scale / STEP) * (claim.objective.beta or 1.0)
    units = ((square - scale.mean(0).square()).clamp(min=0) + (FLAT * largest) ** 2).sqrt()
    units = torch.where(units > 0, units, 1.0)
    named = {"scale": scale, "KL weight": weight}
    known = {name: halves for name, halves in named.items() if float((halves / units).prod(0).sum()) > 0}
    return Tally(known, sizes, units)


def _with_whole(apart: Differences, mine: Tensor, trusted: Tensor) -> Differences:
    """With Hotelling's test beside the directions, either at half of the level."""
    p_value = hotelling_two_sample(mine, trusted, FLAT).p_value
    worst = "all coordinates together" if p_value < apart.p_value else apart.worst
    return replace(apart, p_value=min(1.0, 2 * min(p_value, apart.p_value)), worst=worst)
