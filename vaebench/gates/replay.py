"""Gates of the replayed steps: the loop's gradient is the estimator's, and differs from a trusted one by noise only.

A replayed step has the parameters, minibatch and noise that the loop says it used. The estimator's own gradient there
must be the loop's to rounding: whatever a loop or an optimizer does to gradients, such as clipping or weight decay, is
a difference. A trusted estimator's gradient there has the claimed mean; with d = g - t at equal noise and any weight u
that is known before the step, the sums of <u, d> over steps and members are a martingale if the gradient is unbiased.
For u the mean trusted gradient of all members in the 50 steps before is taken, in every parameter, and every
coordinate; over the whole run, and over every stretch of 50 steps.
"""

import torch
from torch import Tensor

from vaebench.gates.means import RESOLUTION
from vaebench.gates.path import UNITS, Mismatch
from vaebench.gates.sums import errors_found, z_scores
from vaebench.gates.verdict import LEVEL, Verdict, judge, two_sided

STRETCH = 50  # steps that a fault may last
LASTING = 50  # steps: a longer fault must not fall between replayed ones


def replayed(found: Mismatch, longest: int, dtype: torch.dtype) -> Verdict:
    """The loop hands its optimizer the estimator's gradient, at the minibatch and the noise that it says it used.

    Args:
        found: the largest mismatch.
        longest: a fault of so many successive steps cannot fall between the replayed ones.
        dtype: of the gradients.

    Returns:
        The verdict; it involves no chance.
    """
    return judge(
        "replay",
        "the gradient of a step is the estimator's at its parameters, minibatch and noise (statistic: difference in "
        "units of rounding)",
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
        parts: numbers of the steps (n,), differences and trusted gradients (n, S, p).
        blocks: sizes of the parameters by name.

    Returns:
        The verdict on the largest |Z|.
    """
    numbers, off, trusted = parts[0], parts[1].double(), parts[2].double()
    members, sizes = off.shape[1], list(blocks.values())
    stretch = max(1, round(STRETCH / max(1.0, float(numbers[-1] - numbers[0] + 1) / len(numbers))))
    weights = _means_before(trusted.mean(1), stretch).unsqueeze(1)
    terms, progress, rounding = (
        torch.stack([p.sum(-1) for p in part.split(sizes, -1)], -1)
        for part in (off * weights, trusted * weights, (trusted * weights).abs())
    )
    scale = UNITS * torch.finfo(parts[1].dtype).eps
    terms, rounding = torch.cat([terms, off], -1), scale * torch.cat([rounding, trusted.abs()], -1)
    starts = range(0, max(1, len(terms) - stretch + 1), max(1, stretch // 2))
    threshold = two_sided(terms.shape[-1] * (len(starts) + 1))
    places = {"whole run": slice(None)}
    places |= {f"steps {int(numbers[k])} to {int(numbers[k : k + stretch][-1])}": slice(k, k + stretch) for k in starts}
    highest, where = -1.0, ""
    for name, part in places.items():
        inside, slack = terms[part].flatten(0, 1), rounding[part].flatten(0, 1).sum(0)
        z = float(z_scores(inside, slack).max())
        if z > highest:
            highest, where = z, name
    along = terms[..., : len(sizes)].flatten(0, 1)
    gained = progress.flatten(0, 1).sum(0).clamp(min=1e-300)
    found = errors_found(threshold, along) * along.square().sum(0).sqrt() / gained + scale
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


def _means_before(rows: Tensor, window: int) -> Tensor:
    """The mean of the rows (n, p) before each, of the last so many at most; zero before the first."""
    sums = torch.nn.functional.pad(rows.cumsum(0), (0, 0, 1, 0))
    ends = torch.arange(len(rows), device=rows.device)
    starts = (ends - window).clamp(min=0)
    return (sums[ends] - sums[starts]) / (ends - starts).clamp(min=1).unsqueeze(1)
