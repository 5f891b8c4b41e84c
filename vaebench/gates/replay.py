"""Gates of the replayed steps: the loop's gradient is the estimator's, and differs from a trusted one by noise only.

A replayed step has the parameters, minibatch and noise that the loop says it used. The estimator's own gradient there
must be the loop's to rounding: whatever a loop or an optimizer does to gradients, such as clipping or weight decay, is
a difference. A trusted estimator's gradient there has the claimed mean; with d = g - t at equal noise and any weight u
that is independent of the step's noise, the sums of <u, d> over steps and members are a martingale if the gradient is
unbiased. For u the mean trusted gradient of the other members is taken, in every parameter, and every coordinate; over
the whole run, and over every stretch of 50 steps.
"""

import math

import torch
from torch import Tensor

from vaebench.gates.means import RESOLUTION
from vaebench.gates.path import UNITS, Mismatch
from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided

STRETCH = 50  # steps that a fault may last
LASTING = 50  # steps: a longer fault must not fall between replayed ones


def replayed(found: Mismatch, longest: int, dtype: torch.dtype) -> Verdict:
    """The loop hands its optimizer the estimator's gradient, at the minibatch and the noise that it says it used.

    The loss that it tells is the estimator's there too, and checkpoints record the losses and the squared norms of the
    gradients that were told.

    Args:
        found: the largest mismatch.
        longest: a fault of so many successive steps cannot fall between the replayed ones.
        dtype: of the gradients.

    Returns:
        The verdict; it involves no chance.
    """
    return judge(
        "replay",
        "the gradient and the loss of a step, and what is recorded of them, are the estimator's at its parameters, "
        "minibatch and noise (statistic: difference in units of rounding)",
        found.error,
        1.0,
        0.0,
        {"worst step": found.step, "relative rounding": UNITS * torch.finfo(dtype).eps},
        smallest=float(longest),
        limit=float(LASTING),
        unit="steps, the shortest fault that is met for certain",
    )


def paired_along(parts: tuple[Tensor, Tensor, Tensor], blocks: dict[str, int]) -> Verdict:
    """The gradients of the run differ from trusted ones at equal noise by noise of mean zero.

    Args:
        parts: numbers of the steps (n,), differences and trusted gradients (n, S, p), S >= 2.
        blocks: sizes of the parameters by name.

    Returns:
        The verdict on the largest |Z|, of those of stretches after a correction for their skewness.
    """
    numbers, off, trusted = parts[0], parts[1].double(), parts[2].double()
    members, sizes = off.shape[1], list(blocks.values())
    others = (trusted.sum(1, keepdim=True) - trusted) / (members - 1)
    progress = torch.stack([p.sum(-1) for p in ((trusted * others).split(sizes, -1))], -1)
    terms = torch.cat([torch.stack([p.sum(-1) for p in (off * others).split(sizes, -1)], -1), off], -1)
    rounding = UNITS * torch.finfo(parts[1].dtype).eps
    scale = torch.cat(
        [torch.stack([p.sum(-1) for p in (trusted * others).abs().split(sizes, -1)], -1), trusted.abs()], -1
    )
    stretch = max(1, round(STRETCH / max(1.0, float(numbers[-1] - numbers[0] + 1) / len(numbers))))
    starts = range(0, max(1, len(terms) - stretch + 1), max(1, stretch // 2))
    comparisons = terms.shape[-1] * (len(starts) + 1)
    threshold = two_sided(comparisons)
    whole = _scores(terms.flatten(0, 1), rounding * scale.flatten(0, 1))
    skewness = _skewness(terms.flatten(0, 1))
    highest, where = float(whole.max()), "whole run"
    for start in starts:
        part = slice(start, start + stretch)
        inside = terms[part].flatten(0, 1)
        inflation = 1 + skewness * (2 * threshold + 1 / threshold) / (6 * len(inside) ** 0.5)
        z = float((_scores(inside, rounding * scale[part].flatten(0, 1)) / inflation).max())
        if z > highest:
            highest, where = z, f"steps {int(numbers[part][0])} to {int(numbers[part][-1])}"
    along = terms[..., : len(sizes)].flatten(0, 1)
    gained = progress.flatten(0, 1).sum(0)
    found = detectable(threshold) * along.square().sum(0).sqrt() / gained.clamp(min=1e-300) + rounding
    return judge(
        "paired ledger",
        "the run's gradients are trusted ones at equal noise, up to noise of mean zero (statistic: largest |Z|)",
        highest,
        threshold,
        LEVEL,
        {"worst": where, "steps": len(numbers), "members": members, "stretches": len(starts)}
        | {f"finds in {name}": float(part) for name, part in zip(blocks, found, strict=True)},
        smallest=float(found.max()),
        limit=RESOLUTION,
        unit="of the gradient",
    )


def _scores(terms: Tensor, rounding: Tensor) -> Tensor:
    """|sum| less what rounding explains, over the root of the sum of squares."""
    total = (terms.sum(0).abs() - rounding.sum(0)).clamp(min=0)
    scores = total / terms.square().sum(0).sqrt().clamp(min=1e-300)
    return torch.where(scores.isnan(), math.inf, scores)


def _skewness(terms: Tensor) -> Tensor:
    """|E d^3| / (E d^2)^{3/2} by column."""
    return terms.pow(3).mean(0).abs() / terms.square().mean(0).pow(1.5).clamp(min=1e-300)
