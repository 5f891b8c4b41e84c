"""Gates of a training run: its noise is uncorrelated, from step to step and from member to member.

As in `vaebench.gates.walking`, sums of <u_k, xi_k> are martingales for any weight u_k that is known before. Here u_k is
the direction of noise that came before, of length one: products of two skewed numbers are skewed and heavy-tailed
beyond what can be explained. Of 1,920 lognormal noises, the sum of products of neighbours is 6 times as often beyond
the level 1e-4 as it should be, that of members 3 times; by directions, 0.8 and 0.5 times.
"""

from itertools import pairwise

import torch
from torch import Tensor

from vaebench.gates.path import Path
from vaebench.gates.sums import errors_found, scores_from, z_scores
from vaebench.gates.verdict import LEVEL, Verdict, judge, two_sided

MEMORY = 0.95  # decay of the past noise that the next is held against
LAGS = 512
CORRELATION = 0.2  # of noises: a gate that finds no smaller one has no power


def successive(path: Path, used: Tensor) -> Verdict:
    """The noise of a step is uncorrelated with the direction of that of any earlier step, and of their decaying sum.

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
        terms.append((_directions(past) * now).sum(-1))
    last = (_directions(noise[:-1]) * noise[1:]).sum(-1)[adjacent].flatten()
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
        smallest=_correlation(threshold, last, _lengths(noise[:-1])[adjacent]),
        limit=CORRELATION,
        unit="of the noise's variance, between neighbours",
    )


def _lengths(vectors: Tensor) -> Tensor:
    return vectors.square().sum(-1, keepdim=True).sqrt()


def _directions(vectors: Tensor) -> Tensor:
    """Vectors (..., p) over their lengths; zero of those that are zero."""
    return vectors / _lengths(vectors).clamp(min=1e-300)


def _correlation(threshold: float, terms: Tensor, full: Tensor) -> float:
    """The smallest correlation that would have been found with probability 0.9.

    Args:
        threshold: of |Z|.
        terms: noise along directions, (n,).
        full: what they would be at a correlation of one; 0 where there was no noise.

    Returns:
        The correlation; 0 if there was no noise at all.
    """
    error, most = float(terms.square().sum().sqrt()) / max(1, terms.numel()), float(full.mean())
    return float(errors_found(threshold, terms)) * error / most if most > 0 else 0.0


def lag_scores(noise: Tensor, lags: int) -> Tensor:
    """|Z| of the noise (n, S, p) along the direction of that 1 .. lags steps before, from members' Gram matrices."""
    n, width, total = len(noise), lags + 1, noise.new_zeros(3, lags + 1)
    start, lag = torch.arange(width, device=noise.device), torch.arange(width, device=noise.device)
    for member in noise.unbind(1):
        later = torch.nn.functional.pad(member, (0, 0, 0, 2 * width))
        for first in range(0, n, width):  # a band of the Gram matrix: rows and what follows them by at most the lags
            gram = _directions(later[first : first + width]) @ later[first : first + 2 * width].T
            products = gram.as_strided((width, width), (2 * width + 1, 1))  # entry (i, l) is that of (i, i + l)
            products = products * (first + start[:, None] + lag < n)
            squares = products.square()
            total += torch.stack([products.sum(0), squares.sum(0), (squares * products).sum(0)])
    sums, squares, cubes = total
    return scores_from(sums, squares, cubes, (n - lag) * noise.shape[1])[1:]


def members(path: Path, used: Tensor) -> Verdict:
    """The noises of the members of a fleet are uncorrelated: their errors may be averaged.

    A member's noise along the direction of the sum of those before it has mean zero given them: over steps and members
    these are a martingale. The sums of a step's pairs are skewed even if noise is symmetric, as squares are.

    Args:
        path: with exact gradients.
        used: g_k, (n, S, p), S >= 2.

    Returns:
        The verdict on |Z|.
    """
    noise = used - path.exact
    count, threshold = noise.shape[1], two_sided(1)
    past = (noise.cumsum(1) - noise)[:, 1:]
    terms = (_directions(past) * noise[:, 1:]).sum(-1).flatten()
    number, square = torch.arange(1, count, device=noise.device), noise.square().sum(-1).mean(1, keepdim=True)
    full = number * square / _lengths(past).squeeze(-1).clamp(min=1e-300)  # each of those before has its share
    return judge(
        "members",
        "the noises of different members are uncorrelated (statistic: |Z|)",
        float(z_scores(terms)),
        threshold,
        LEVEL,
        {"members": count, "steps": len(noise)},
        smallest=_correlation(threshold, terms, torch.where(_lengths(past).squeeze(-1) > 0, full, 0.0)),
        limit=CORRELATION,
        unit="of the noise's variance, between members",
    )
