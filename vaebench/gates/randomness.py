"""Is what a run drew what it claims: uniform, independent minibatches, and standard normal, independent noise?

Sums are kept of every replayed step; each score is a standard normal's under the claim, to the accuracy of sums of
many thousands of terms.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy import special
from torch import Tensor

from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided

MOMENTS = {1: (0.0, 1.0), 2: (1.0, 2.0), 3: (0.0, 15.0), 4: (3.0, 96.0)}  # of a standard normal: mean, variance
MANY = 10**5  # numbers from which on averages of third and fourth powers are about normal
FINGERPRINT = 4  # numbers of a draw by which it is recognised
EXPECTED = 5.0  # draws of an example from which its count is about normal
LIMIT = 0.05  # of the noise's variance


@dataclass
class Randomness:
    """Sums over minibatches and noise.

    Attributes:
        size: number of examples N.
        shape: of one draw of the noise, (K, B, D).
        powers: sums of the first four powers of the noise.
        each: sums of the noise and of its squares by sample and latent, (2, K, D).
        numbers: how many normal numbers there were.
        blocks: normalised sums over one draw, (members' draws,), by parts.
        together: the same over all members of a step, by parts.
        successive: normalised products of a member's successive draws, by parts.
        counts: how often each example was drawn, (N,).
        doubled: pairs of equal examples within minibatches.
        batches: how many minibatches there were.
        seen: fingerprints of draws, by parts.
    """

    size: int
    shape: torch.Size
    powers: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    each: Tensor | float = 0.0
    numbers: int = 0
    blocks: list[Tensor] = field(default_factory=list)
    together: list[Tensor] = field(default_factory=list)
    successive: list[Tensor] = field(default_factory=list)
    counts: Tensor | float = 0.0
    doubled: int = 0
    batches: int = 0
    seen: list[Tensor] = field(default_factory=list)

    def enter(self, numbers: Tensor, indices: Tensor, noise: Tensor, members: int) -> None:
        """Take in steps.

        Args:
            numbers: of the steps, (n,).
            indices: (n S, B), step by step.
            noise: (n S, K, B, D).
            members: S.
        """
        noise, indices = noise.double().cpu(), indices.cpu()
        self.powers += torch.stack([noise.pow(k).sum() for k in MOMENTS])
        self.each = self.each + torch.stack([noise.sum((0, 2)), noise.square().sum((0, 2))])
        self.numbers += noise.numel()
        flat = noise.flatten(1)
        sums = flat.sum(1).view(-1, members)
        self.blocks.append(sums.flatten() / flat.shape[1] ** 0.5)
        self.together.append(sums.sum(1) / (flat.shape[1] * members) ** 0.5)
        steps = flat.view(-1, members, flat.shape[1])
        adjacent = (numbers[1:] - numbers[:-1]) == 1
        self.successive.append(((steps[1:] * steps[:-1]).sum(-1)[adjacent] / flat.shape[1] ** 0.5).flatten())
        self.counts = self.counts + torch.bincount(indices.flatten(), minlength=self.size)
        ordered = indices.sort(1).values
        run, pairs = torch.ones_like(ordered[:, 0]), 0
        for left, right in zip(ordered.T[:-1], ordered.T[1:], strict=True):
            run = torch.where(left == right, run + 1, torch.ones_like(run))
            pairs += int((run - 1).sum())
        self.doubled += pairs
        self.batches += len(indices)
        self.seen.append(flat[:, :FINGERPRINT])

    def noise_scores(self) -> dict[str, float]:
        """Standard normal scores of the noise by name."""
        n = self.numbers
        scores = {
            f"power {k}": (float(self.powers[k - 1]) / n - mean) / math.sqrt(variance / n)
            for k, (mean, variance) in MOMENTS.items()
            if k <= 2 or n >= MANY
        }
        first, second = torch.as_tensor(self.each)
        per = n / first.numel()
        scores["mean of a sample or latent"] = float((first / per**0.5).flatten()[_worst(first)])
        off = (second - per) / (2 * per) ** 0.5
        scores["variance of a sample or latent"] = float(off.flatten()[_worst(off)])
        for name, parts in (("one draw", self.blocks), ("members", self.together)):
            values = torch.cat(parts)
            scores[f"independence within {name}"] = float((values.square().mean() - 1) * (len(values) / 2) ** 0.5)
        products = torch.cat(self.successive)
        if len(products):
            scores["successive draws"] = float(products.sum()) / len(products) ** 0.5
        return scores

    def batch_scores(self) -> dict[str, float]:
        """Standard normal scores of minibatches with replacement by name."""
        counts, draws = torch.as_tensor(self.counts).double(), self.batches * self.shape[1]
        scores, expected = {}, draws / self.size
        if expected >= EXPECTED and self.size > 1:
            freedom = self.size - 1
            chi = float((counts - expected).square().sum() / expected)
            scores["examples' counts"] = _chi_square_score(chi, freedom)
        pairs = self.batches * math.comb(self.shape[1], 2) / self.size
        if pairs >= 5 * EXPECTED and self.size > 1:
            scores["doubled examples"] = (self.doubled - pairs) / math.sqrt(pairs * (1 - 1 / self.size))
        return scores

    @property
    def repeated(self) -> int:
        """Draws of noise that were seen before; draws of one number may repeat by chance and are not counted."""
        seen = torch.cat(self.seen)
        if seen.shape[1] < 2:
            return 0
        if len(seen[:, 0].unique()) == len(seen):  # looking at whole rows takes twenty times as long
            return 0
        return len(seen) - len(seen.unique(dim=0))


def _worst(values: Tensor) -> int:
    return int(values.abs().flatten().argmax())


def _chi_square_score(chi: float, freedom: int) -> float:
    """The normal quantile of a chi-square statistic, from whichever tail is the smaller."""
    low, high = float(special.chdtr(freedom, chi)), float(special.chdtrc(freedom, chi))
    tail = max(min(low, high), math.exp(-700.0))
    return math.copysign(min(40.0, -float(special.ndtri(tail))), 1 if high < low else -1)


def randomness(found: Randomness, uniform: bool) -> Verdict:
    """The verdict on all scores, and on repetitions, of which there must be none.

    Args:
        found: the sums.
        uniform: whether minibatches are claimed to be drawn with replacement; else examples may be drawn more evenly
            and minibatches hold fewer of them twice, as where epochs are drawn, and the opposite alone counts.

    Returns:
        The verdict on the largest |z|.
    """
    batches = found.batch_scores()
    if not uniform:
        batches = {name: max(0.0, score) for name, score in batches.items()}
    scores = found.noise_scores() | batches
    samples, _, latents = found.shape
    comparisons = len(scores) + 2 * (samples * latents - 1)
    threshold, repeated = two_sided(comparisons), found.repeated
    worst = max(scores, key=lambda name: abs(scores[name]))
    evidence: dict[str, Any] = {"worst": worst, "normal numbers": found.numbers, "repeated draws": repeated}
    return judge(
        "randomness",
        "minibatches and noise are independent draws of the claimed laws (statistic: largest |z|)",
        math.inf if repeated else abs(scores[worst]),
        threshold,
        LEVEL,
        evidence,
        smallest=detectable(threshold) * math.sqrt(2 / found.numbers),
        limit=LIMIT,
        unit="of the noise's variance",
    )
