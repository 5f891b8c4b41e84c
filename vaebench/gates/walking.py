"""Gates of a training run, step by step: martingale tests of its noise, and its rule.

With xi_k = g_k - grad f(x_{k-1}) and any weight u_k that is known before step k, the sums of <u_k, xi_k> over
steps and members are a martingale if the gradient is unbiased, and Z = sum / sqrt(sum of squares), less what the
skewness of its terms explains, is about standard normal (martingale central limit theorem). Thresholds are the
normal's at level 2e-5 per gate.
"""

import math

import torch
from torch import Tensor

from vaebench.gates.path import ROUNDING, Mismatch, Path
from vaebench.gates.sums import errors_found, z_scores
from vaebench.gates.verdict import LEVEL, Verdict, judge, two_sided

DIRECTIONS = 64
PROGRESS = 0.5  # of the gradient: a ledger that finds no smaller error of its size has no power
MEAN = 0.2  # of the noise's root mean square, per coordinate
SIZE = 1.0  # of the noise's variance


def descent(path: Path, used: Tensor, error: float = 0.0) -> Verdict:
    """The descent ledger: sum of gamma_k <grad f, g_k - grad f>, for each parameter and for all.

    Args:
        path: with exact gradients.
        used: g_k, (n, S, p): `path.moved` for SGD, `path.raw` for rules that rescale.
        error: that the exact gradients may have beside rounding, relative.

    Returns:
        The verdict on the largest |Z|.
    """
    sizes = list(path.blocks.values())
    along = path.gamma[:, None, None] * path.exact * (used - path.exact)
    terms = torch.stack([part.sum(-1) for part in (*along.split(sizes, -1), along)], -1).flatten(0, 1)
    squares = path.gamma[:, None, None] * path.exact.square()
    allowed = max(error, path.exactness) * squares + path.gamma[:, None, None] * path.exact.abs() * path.blur
    slack = torch.stack([part.sum() for part in (*allowed.split(sizes, -1), allowed)])
    z, names = z_scores(terms, slack), [*path.blocks, "all"]
    worst, threshold = int(z.argmax()), two_sided(len(z))
    progress = torch.stack([part.sum() for part in (*squares.split(sizes, -1), squares)])
    found = errors_found(threshold, terms) * terms.square().sum(0).sqrt() / progress.clamp(min=1e-300)
    evidence = {"worst": names[worst], "steps": len(path.numbers), "members": path.exact.shape[1]}
    return judge(
        "descent ledger",
        "progress along the exact gradient is what the steps claim, in every parameter (statistic: |Z|)",
        float(z[worst]),
        threshold,
        LEVEL,
        evidence | {f"finds in {name}": float(part) for name, part in zip(names, found, strict=True)},
        smallest=float(found.max()),
        limit=PROGRESS,
        unit="of the gradient",
    )


def noise_mean(path: Path, used: Tensor, generator: torch.Generator, error: float = 0.0) -> Verdict:
    """The noise along the path has mean zero, in every coordinate and 64 fixed random directions.

    Args:
        path: with exact gradients.
        used: g_k, (n, S, p).
        generator: of the directions.
        error: that the exact gradients may have beside rounding, relative.

    Returns:
        The verdict on the largest |Z|.
    """
    noise = (used - path.exact).flatten(0, 1)
    shape = noise.shape[1], DIRECTIONS
    directions = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    slack = max(error, path.exactness) * float(path.exact.square().mean().sqrt()) * len(noise)
    slack = slack + path.blur.sum((0, 1))
    z = torch.cat([z_scores(noise, slack), z_scores(noise @ directions, slack @ directions.abs())])
    threshold = two_sided(len(z))
    return judge(
        "noise mean",
        "the gradient noise met in training has mean zero (statistic: largest |Z|)",
        float(z.max()),
        threshold,
        LEVEL,
        {"directions": len(z), "steps": len(path.numbers)},
        smallest=float(errors_found(threshold, noise).max()) / len(noise) ** 0.5,
        limit=MEAN,
        unit="of the noise's root mean square",
    )


def noise_size(path: Path, used: Tensor) -> Verdict:
    """The noise met in training is as large as that of independent gradients at the same points.

    Given the past, |xi|^2 and its independent copy are exchangeable; their difference over their sum is symmetric.

    Args:
        path: with exact gradients and a control.
        used: g_k, (n, S, p).

    Returns:
        The verdict on |Z|.
    """
    at, drawn = path.control
    mine = (used[at] - path.exact[at]).square().sum(-1)
    theirs = (drawn - path.exact[at]).square().sum(-1)
    total = (mine + theirs).clamp(min=1e-300)
    ratio = float(mine.sum() / theirs.sum()) if float(theirs.sum()) > 0 else math.inf
    terms, threshold = ((mine - theirs) / total).flatten(), two_sided(1)
    error = float(terms.square().sum().sqrt()) / max(1, len(terms))
    share = float(errors_found(threshold, terms)) * error  # (r - 1) / (r + 1)
    return judge(
        "noise size",
        "the noise met in training is as large as that of independent gradients there (statistic: |Z|)",
        float(z_scores(terms)),
        threshold,
        LEVEL,
        {"ratio": ratio, "steps": len(at)},
        smallest=2 * share / (1 - share) if share < 1 else math.inf,
        limit=SIZE,
        unit="of the noise's variance",
    )


def rule(found: Mismatch | None) -> Verdict:
    """Every step is that of the claimed optimizer at the claimed step size, given the gradients it was given.

    Args:
        found: the largest mismatch, of `Recorder.worst`.

    Returns:
        The verdict; it involves no chance.
    """
    error, step = found or Mismatch(math.inf, 1)
    return judge(
        "optimizer step",
        "every step is the claimed rule's at the claimed step size (statistic: difference in units of rounding)",
        error,
        1.0,
        0.0,
        {"worst step": step},
        smallest=ROUNDING,
        limit=ROUNDING,
        unit="of a step",
    )
