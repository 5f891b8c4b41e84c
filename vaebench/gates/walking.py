"""Gates of a training run, step by step: martingale tests of its noise, and its rule.

With xi_k = g_k - grad f(x_{k-1}) and any weight u_k that is known before step k, the sums of <u_k, xi_k> over
steps and members are a martingale if the gradient is unbiased, and Z = sum / sqrt(sum of squares), less what the
skewness of its terms explains, is about standard normal (martingale central limit theorem). Thresholds are the
normal's at level 2e-5 per gate.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from vaebench.gates.path import ROUNDING, Mismatch, Path
from vaebench.gates.sums import errors_found, scores_from, z_scores
from vaebench.gates.verdict import LEVEL, Verdict, judge, two_sided

DIRECTIONS = 64
MEMORY = 0.95  # decay of the past noise that the next is held against
LAGS = 512
PROGRESS = 0.5  # of the gradient: a ledger that finds no smaller error of its size has no power
MEAN = 0.2  # of the noise's root mean square, per coordinate
CORRELATION = 0.2  # of noises
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


def successive(path: Path, used: Tensor) -> Verdict:
    """The noise of a step is uncorrelated with that of any earlier step, and with their decaying sum.

    Lags reach 512, or half the steps that are all watched from the first on; lag one is tested everywhere.

    Args:
        path: with exact gradients.
        used: g_k, (n, S, p).

    Returns:
        The verdict on the largest |Z|.
    """
    noise, n = used - path.exact, path.prefix
    adjacent = (path.numbers[1:] - path.numbers[:-1]) == 1
    terms, past = [], torch.zeros_like(noise[0])
    for before, now in pairwise(noise):
        past = MEMORY * past + before
        terms.append((past * now).sum(-1))
    last = (noise[1:] * noise[:-1]).sum(-1)[adjacent].flatten()
    lags = lag_scores(noise[:n], min(n // 2, LAGS))
    z = torch.stack([z_scores(last), z_scores(torch.cat(terms)), lags.max()])
    threshold = two_sided(len(lags) + 2)
    return judge(
        "successive noise",
        "the noise of successive steps is uncorrelated (statistic: largest |Z| of all lags and decaying memory)",
        float(z.max()),
        threshold,
        LEVEL,
        {"lag one": float(z[0]), "memory": float(z[1]), "worst lag": int(lags.argmax()) + 1, "lags": len(lags)},
        smallest=_correlation(threshold, last, noise),
        limit=CORRELATION,
        unit="of the noise's variance, between neighbours",
    )


def _correlation(threshold: float, products: Tensor, noise: Tensor) -> float:
    """The smallest mean product, over the mean square, that would have been found with probability 0.9."""
    square = float(noise.square().sum(-1).mean())
    error = float(products.square().sum().sqrt()) / max(1, products.numel())
    return float(errors_found(threshold, products)) * error / square if square > 0 else 0.0


def lag_scores(noise: Tensor, lags: int) -> Tensor:
    """|Z| of the autocovariance of the noise (n, S, p) at the lags 1 .. lags, from the members' Gram matrices."""
    n, width, total = len(noise), lags + 1, noise.new_zeros(3, lags + 1)
    start, lag = torch.arange(width, device=noise.device), torch.arange(width, device=noise.device)
    for member in noise.unbind(1):
        later = torch.nn.functional.pad(member, (0, 0, 0, 2 * width))
        for first in range(0, n, width):  # a band of the Gram matrix: rows and what follows them by at most the lags
            gram = later[first : first + width] @ later[first : first + 2 * width].T
            products = gram.as_strided((width, width), (2 * width + 1, 1))  # entry (i, l) is that of (i, i + l)
            products = products * (first + start[:, None] + lag < n)
            squares = products.square()
            total += torch.stack([products.sum(0), squares.sum(0), (squares * products).sum(0)])
    sums, squares, cubes = total
    return scores_from(sums, squares, cubes, (n - lag) * noise.shape[1])[1:]


def members(path: Path, used: Tensor) -> Verdict:
    """The noises of the members of a fleet are uncorrelated: their errors may be averaged.

    A member's noise times the sum of those before it has mean zero given them, and is symmetric if noise is: over steps
    and members these are a martingale. The sums of a step's pairs are skewed even then, as squares are.

    Args:
        path: with exact gradients.
        used: g_k, (n, S, p), S >= 2.

    Returns:
        The verdict on |Z| of the inner products of all pairs.
    """
    noise = used - path.exact
    count, threshold = noise.shape[1], two_sided(1)
    terms = ((noise.cumsum(1) - noise) * noise).sum(-1)[:, 1:].flatten()
    return judge(
        "members",
        "the noises of different members are uncorrelated (statistic: |Z|)",
        float(z_scores(terms)),
        threshold,
        LEVEL,
        {"members": count, "steps": len(noise)},
        smallest=_correlation(threshold, terms, noise) / (count / 2),
        limit=CORRELATION,
        unit="of the noise's variance, between members",
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
