"""Gates of a training run as a whole: the theorem's inequalities and the second-order identity, over seeds.

Both sides are evaluated per seed, on the run's own path, and their difference is tested by Student's t.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaebench.gates.path import Path
from vaebench.gates.reference import Reference, unflatten
from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided
from vaebench.gradients.loss import Parameters
from vaebench.theory import envelopes, ledger, predictions
from vaebench.training.records import geometric
from vaebench.training.schedules import Schedule

TOLERANCE = 0.05  # of the identity, for what is of higher order in the step
SAFETY = 1.5  # factor on the largest curvature seen, where it is not known along the whole path
DENSE = 100  # parameters up to which Hessians of all members are formed along the path
BLUR = 0.5  # of the mean squared gradient: a test over seeds that finds no smaller excess has no power
BURN_IN = 50  # steps before Adam's ledger opens


class Curvature(NamedTuple):
    """Hessians along a path, held constant between marks.

    Attributes:
        top: L_k for every step of the prefix, (n, S) or (n, 1).
        marks: indices where Hessians were taken, the last one the end.
        hessians: there, (m, S, p, p); empty if only some members' were taken.
    """

    top: Tensor
    marks: tuple[int, ...]
    hessians: Tensor


def curvature(path: Path, reference: Reference, like: Parameters) -> Curvature:
    """The curvature met on the prefix of a path: all members' Hessians where they are cheap, else tops of two members'.

    Args:
        path: with a prefix of n >= 2 steps.
        reference: exact.
        like: stacked parameters, for names and shapes.

    Returns:
        L_k: the larger at the two ends of a segment; times 1.5, everywhere the largest, if of some members only.
    """
    n = path.prefix
    points = torch.cat([path.before[:n], path.end.unsqueeze(0)])
    if reference.kind != "closed form" or points.shape[-1] > DENSE:
        marks = geometric(n, 2)
        chosen = points[list(marks), :2].flatten(0, 1)
        top = SAFETY * reference.top_curvatures(unflatten(chosen, like)).max()
        return Curvature(top.expand(n, 1), marks, points.new_zeros(len(marks), 0))
    marks = tuple(sorted({*geometric(n, 8), *range(0, n, max(25, n // 25))}))
    chosen = points[list(marks)]
    found = reference.hessians(unflatten(chosen.flatten(0, 1), like)).unflatten(0, chosen.shape[:2])
    top = torch.linalg.eigvalsh(found)[..., -1]
    segment = _segments(n, marks) - 1
    return Curvature(torch.maximum(top[segment], top[segment + 1]), marks, found)


def _segments(n: int, marks: tuple[int, ...]) -> Tensor:
    """One more than the number of the segment between marks in which each of n steps lies."""
    return torch.bucketize(torch.arange(n, device="cpu"), torch.tensor(marks, device="cpu"), right=True)


def _t(margin: np.ndarray) -> tuple[float, float]:
    error = float(margin.std(ddof=1)) / math.sqrt(len(margin))
    return float(margin.mean()), max(error, 1e-300)


def _smallest(error: float, freedom: int, scale: float) -> float:
    """The excess, relative to a scale, that Student's t over seeds finds with probability 0.9."""
    found = detectable(two_sided(1, freedom), freedom) * error
    return found / scale if scale > 0 else math.inf


def values(path: Path, reference: Reference, like: Parameters) -> np.ndarray:
    """Exact values of f along the watched prefix and at its end, (S, n + 1)."""
    n = path.prefix
    last, _ = reference.evaluate(unflatten(path.end, like))
    return torch.cat([path.values[:n], last.unsqueeze(0)]).T.double().cpu().numpy()


def _arrays(path: Path, used: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = path.prefix
    noise = (used[:n] - path.exact[:n]).square().sum(-1)
    parts = path.gamma[:n], path.exact[:n].square().sum(-1).T, noise.T
    gamma, squared, noise = (part.double().cpu().numpy() for part in parts)
    return gamma, squared, noise


def telescoped(path: Path, values: np.ndarray, found: Curvature, used: Tensor) -> Verdict:
    """(C-u): the running mean of |grad f|^2 stays within the telescoped bound, with the noise met.

    Args:
        path: of SGD.
        values: f(x_0) .. f(x_n), (S, n + 1).
        found: curvature.
        used: g_k.

    Returns:
        The verdict on Student's t over seeds of left less right.
    """
    gamma, squared, noise = _arrays(path, used)
    sides = envelopes.uniform_telescoped(gamma, squared, values, found.top.T.double().cpu().numpy(), noise)
    excess, error = _t(-sides.margin[:, -1])
    return judge(
        "telescoped envelope",
        "the mean squared gradient stays within its telescoped bound (statistic: t of the excess over seeds)",
        excess / error,
        two_sided(1, len(values) - 1),
        LEVEL,
        {
            "measured": float(sides.left[:, -1].mean()),
            "bound": float(sides.right[:, -1].mean()),
            "steps": len(gamma),
            "curvature": "on the path" if found.hessians.shape[1] else f"{SAFETY:g} x the largest measured",
        },
        smallest=_smallest(error, len(values) - 1, float(sides.left[:, -1].mean())),
        limit=BLUR,
        unit="of the mean squared gradient, beyond the bound",
    )


def identity(path: Path, values: np.ndarray, found: Curvature, used: Tensor) -> Verdict:
    """The second-order identity: the mean squared gradient is what the fall of f and the curvature say.

    tr(H Sigma) is replaced by xi' H xi of the noise met, which has that mean.

    Args:
        path: of SGD.
        values: f(x_0) .. f(x_n), (S, n + 1).
        found: curvature, with Hessians of all members.
        used: g_k.

    Returns:
        The verdict on the relative difference beyond Student's t times its error.
    """
    gamma, squared, _ = _arrays(path, used)
    n = len(gamma)
    segment = _segments(n, found.marks) - 1
    hessians = (found.hessians[:-1] + found.hessians[1:]) / 2
    exact, noise = path.exact[:n], used[:n] - path.exact[:n]
    curved = [(v * (hessians[segment] @ v.unsqueeze(-1)).squeeze(-1)).sum(-1).T.cpu().numpy() for v in (noise, exact)]
    law = predictions.mean_squared_gradient(gamma, values, curved[0], curved[1])[:, -1]
    mean = squared.mean(-1)
    off, error = _t(law - mean)
    crit = two_sided(1, len(values) - 1)
    return judge(
        "identity",
        "the mean squared gradient is the one that the fall of f and the curvature predict "
        f"(statistic: relative difference beyond {crit:.1f} standard errors)",
        max(0.0, abs(off) - crit * error) / float(mean.mean()),
        TOLERANCE,
        LEVEL,
        {"predicted / measured": float(law.mean() / mean.mean()), "relative error": error / float(mean.mean())},
        smallest=TOLERANCE + _smallest(error, len(values) - 1, float(mean.mean())),
        limit=BLUR,
        unit="of the mean squared gradient",
    )


def envelope(path: Path, values: np.ndarray, found: Curvature, used: Tensor, schedule: Schedule) -> Verdict:
    """(B-u): the theorem's form, C log-free over sqrt(n), with the largest curvature, noise and gap on the path.

    Args:
        path: of SGD.
        values: f(x_0) .. f(x_n), (S, n + 1).
        found: curvature.
        used: g_k.
        schedule: C / sqrt(k).

    Returns:
        The verdict on Student's t over seeds of the excess; the ratio to the bound is evidence.
    """
    gamma, squared, noise = _arrays(path, used)
    n, smoothness = len(gamma), float(found.top.max())
    mean_values = values.mean(0)
    blocks = np.array_split(noise.mean(0), max(1, n // 50))
    largest = max(float(block.mean()) for block in blocks)
    gap = float(mean_values.max() - mean_values.min())
    bound = float(envelopes.uniform_bounded(gap, schedule.scale, smoothness, largest, n)[-1])
    excess, error = _t(squared.mean(-1) - bound)
    return judge(
        "envelope",
        "the mean squared gradient lies inside the theorem's envelope (statistic: t of the excess over seeds)",
        excess / error,
        two_sided(1, len(values) - 1),
        LEVEL,
        {"measured / bound": float(squared.mean()) / bound, "L": smoothness, "noise": largest, "steps": n},
        smallest=_smallest(error, len(values) - 1, float(squared.mean())),
        limit=BLUR,
        unit="of the mean squared gradient, beyond the bound",
    )


def adam_ledger(path: Path, reference: Reference, found: Curvature, like: Parameters) -> Verdict:
    """(T): the trajectory ledger of torch's Adam at its default betas, after the fact.

    Args:
        path: of Adam, with a prefix of more than 50 steps.
        reference: exact.
        found: curvature.
        like: stacked parameters, for names and shapes.

    Returns:
        The verdict on Student's t over seeds of left less right.
    """
    n = path.prefix
    account, start = ledger.AdamLedger.begin(path.before[0]), path.values[0]
    for k in range(n):
        gamma = float(path.gamma[k])
        account = ledger.record_step(account, path.raw[k], path.exact[k], gamma, found.top[k], start=BURN_IN)
        if k + 1 == BURN_IN:
            start, _ = reference.evaluate(unflatten(path.before[k + 1] + ledger.offset(account), like))
    end, _ = reference.evaluate(unflatten(path.end + ledger.offset(account), like))
    sides = ledger.sides(account, start, end)
    excess, error = _t(-sides.margin)
    return judge(
        "Adam's ledger",
        "the preconditioned squared gradients stay within Adam's ledger (statistic: t of the excess over seeds)",
        excess / error,
        two_sided(1, len(sides.left) - 1),
        LEVEL,
        {"measured": float(sides.left.mean()), "bound": float(sides.right.mean()), "steps": n - BURN_IN},
        smallest=_smallest(error, len(sides.left) - 1, float(sides.left.mean())),
        limit=BLUR,
        unit="of the preconditioned squared gradients, beyond the bound",
    )
