"""A black box against a trusted gradient of the bound that it claims: contract, value, mean gradient, 1/B."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.experiments.blackboxes.protocol import Arrays, BlackBox, Claim
from vaebench.gates.directions import CERTAIN
from vaebench.gates.means import MEAN_LEVEL, PER_PARAMETER
from vaebench.gates.variances import variance_in_batch
from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided
from vaebench.measures.moments import gather
from vaebench.support.layers import explaining
from vaebench.support.skewness import Skewed, reach, skewness_from, without_skewness
from vaebench.support.statistics import hotelling_two_sample
from vaebench.support.texts import shown

TILES = 4
ROUNDING = 1e-6  # of a value in nats
FLAT = 1e-6  # a direction without noise must agree to so much of the largest coordinate
SHOWN = 0.2  # of the gradient: a test that would not find a bias as large as this has no power


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


class Judged(NamedTuple):
    """What draws say of a box.

    Attributes:
        verdicts: on its value, its mean gradient and the fall of its variance.
        mine: its gradients, (R, p).
        trusted: as many trusted ones.
    """

    verdicts: list[Verdict]
    mine: Tensor
    trusted: Tensor


def judge_box(claim: Claim, x: np.ndarray, count: int, seeds: Callable[[int], list[int]]) -> Judged:
    """Draw gradients of the box and trusted ones at the box's parameters, and run the gates that chance has part in.

    Args:
        claim: the box and what it is held against.
        x: rows.
        count: gradients R of either, at least 200.
        seeds: number -> so many seeds, others at every call.

    Returns:
        Verdicts and gradients.
    """
    at = claim.box.parameters
    (mine, own), (other, trusted) = (draw(one, at, x, seeds(count)) for one in (claim.box, claim.trusted))
    few = max(200, min(count // 4, 1000))
    _, large = draw(claim.box, at, np.concatenate([x] * TILES), seeds(few))
    small, wide = (gather([{"all": one}], len(one)) for one in (own[:few], large))
    verdicts = [value(mine, other), mean_gradient(own, trusted), variance_in_batch(small, wide, TILES)]
    return Judged(verdicts, own, trusted)


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


def value(mine: Tensor, trusted: Tensor) -> Verdict:
    """The mean reported value against the trusted one's: |t|, less what skewness explains."""
    claim = "the reported loss is minus the bound (statistic: |t|)"
    if not (mine.isfinite().all() and trusted.isfinite().all()):
        return judge("bound value", claim, math.inf, two_sided(1), LEVEL, {"not finite": int((~mine.isfinite()).sum())})
    own, other = Skewed.mean(mine), Skewed.mean(trusted)
    off, freedom = own.less(other), len(mine) - 1
    beyond = math.copysign(max(0.0, abs(off.value) - ROUNDING * (1 + abs(other.value))), off.value)
    critical = two_sided(1, freedom)
    needed = detectable(reach(critical, off.skewness, 1), freedom)
    evidence = {"value": own.value, "trusted": other.value, "off": off.value, "error": off.error}
    return judge(
        "bound value", claim, off._replace(value=beyond).score(), critical, LEVEL, evidence,
        smallest=needed * off.error, unit="nats",
    )  # fmt: skip


def mean_gradient(mine: Tensor, trusted: Tensor) -> Verdict:
    """The mean gradient against the trusted one's, as a whole and along it.

    As a whole: Hotelling's test where R >= 20 p, else the largest |t|. Along it, where a wrong scale lies: Student's,
    the direction taken from the first eighth of the trusted draws and tested on the rest of both. Either has half of
    the level.

    Args:
        mine: the box's gradients, (R, p).
        trusted: independent ones, (R, p).

    Returns:
        The verdict on the smaller p-value, doubled.
    """
    from scipy import stats

    claim, (count, size) = "the mean gradient is the trusted bound's (statistic: -log10 p)", mine.shape
    if not (mine.isfinite().all() and trusted.isfinite().all()):
        lost = int((~mine.isfinite()).any(1).sum())
        return judge("gradient mean", claim, math.inf, -math.log10(MEAN_LEVEL), MEAN_LEVEL, {"not finite": lost})
    if count >= PER_PARAMETER * size:
        whole = hotelling_two_sample(mine, trusted, FLAT).p_value
    else:
        slack = FLAT * float(trusted.abs().max())
        largest, _ = _student(mine, trusted, slack)
        whole = min(1.0, 2 * size * float(stats.t.sf(float(largest.max()), count - 1)))
    pilot = count // 8
    direction = trusted[:pilot].mean(0)
    direction = direction / direction.norm().clamp(min=1e-300)
    first, second = (part[pilot:] @ direction for part in (mine, trusted))
    norm, freedom = max(float(second.mean().abs()), 1e-300), count - pilot - 1
    t, error = _student(first[:, None], second[:, None], FLAT * norm)
    along, critical = 2 * float(stats.t.sf(float(t), freedom)), float(stats.t.isf(MEAN_LEVEL / 4, freedom))
    needed = reach(critical, Skewed.mean(first).less(Skewed.mean(second)).skewness, 1)
    p_value = min(1.0, 2 * min(whole, along))
    noise = float((mine.var(0) + trusted.var(0)).sum()) / count
    apart = math.sqrt(max(float((mine.mean(0) - trusted.mean(0)).square().sum()) - CERTAIN * noise, 0.0))
    scale = float(first.mean() - second.mean())
    return judge(
        "gradient mean",
        claim,
        max(0.0, -math.log10(p_value)) if p_value > 0 else math.inf,
        -math.log10(MEAN_LEVEL),
        MEAN_LEVEL,
        {
            "off, relative": float((mine.mean(0) - trusted.mean(0)).norm() / trusted.mean(0).norm().clamp(min=1e-300)),
            "scale off by": scale / norm,
            "scale error": float(error) / norm,
            "scale explains": min(1.0, abs(scale) / apart) if apart > 0 else 1.0,
            "gradients": count,
        },
        smallest=detectable(needed) * float(error) / norm,
        limit=SHOWN,
        unit="of the gradient's scale",
    )


def _student(mine: Tensor, trusted: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    """|t| of the difference of means, less what skewness and rounding (slack) explain, and its error, by column."""
    variance, root = mine.var(0) + trusted.var(0), math.sqrt(len(mine))
    error, off = (variance.sqrt() / root).clamp(min=1e-300), mine.mean(0) - trusted.mean(0)
    t = off.sign() * (off.abs() - slack).clamp(min=0) / error
    third = (mine - mine.mean(0)).pow(3).mean(0) - (trusted - trusted.mean(0)).pow(3).mean(0)
    return without_skewness(t, skewness_from(variance, third), len(mine)).nan_to_num(math.inf), error
