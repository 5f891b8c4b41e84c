"""Tests that vectors which come a few at a time have mean zero, along directions in which faults are looked for."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaebench.gates.means import MEAN_LEVEL
from vaebench.gates.verdict import detectable
from vaebench.support.skewness import reach, skewness_from, skewness_of, without_skewness
from vaebench.support.statistics import student_quantile, student_tail

CERTAIN = 5.0  # times what noise adds to a squared length: what is left of it is no noise
FAMILIES = 3  # named directions, directions of the other half, coordinates: each has a third of the level


@dataclass(frozen=True)
class Along:
    """What the differences say along one direction d.

    Attributes:
        value: their mean part <d_r, d> / |d|^2, with an unbiased |d|^2: 0.02 along the gradient is one 2 % too large.
        error: its standard error.
        p_value: of zero, before any correction.
        skewness: of the numbers whose mean it is.
        share: the part along d over the length that the mean difference has beyond noise, 1 at most: where it is much
            less, something else is wrong.
        slack: the part of `value` that rounding may explain.
    """

    value: float
    error: float
    p_value: float
    skewness: float = 0.0
    share: float = 1.0
    slack: float = 0.0


@dataclass(frozen=True)
class Differences:
    """The test at one point.

    Attributes:
        named: "scale", "scale, encoder", "scale, decoder", "KL weight", as far as there are such directions.
        p_value: of all directions together, Bonferroni's.
        worst: the direction that has it.
        count: number of pairs R.
    """

    named: dict[str, Along]
    p_value: float
    worst: str
    count: int

    def smallest(self, name: str) -> float:
        """The smallest deviation along a named direction that is found with probability 0.9."""
        along, freedom = self.named[name], self.count - 1
        critical = -student_quantile(MEAN_LEVEL / (2 * FAMILIES * len(self.named)), freedom)
        return along.slack + detectable(reach(critical, along.skewness, self.count), freedom) * along.error


class Tally:
    """Sums over the differences, of which only a few are held at a time."""

    def __init__(self, named: dict[str, Tensor], sizes: dict[str, int]):
        """Of directions by name, (2, p) each from two independent halves of draws, whose product is |d|^2 unbiased."""
        self.names, self.sizes = list(named), sizes
        self.named = torch.stack([halves.mean(0) for halves in named.values()], 1) if named else None
        self.lengths = [float(halves.prod(0).sum()) for halves in named.values()]
        shape = (2, sum(sizes.values()))
        self.total, self.squares, self.cubes = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
        self.scores: list[Tensor] = []
        self.crossed: list[Tensor] = []
        self.directions: Tensor | None = None
        self.counts, self.largest = [0, 0], 0.0

    def enter(self, off: Tensor, largest: float, half: int) -> None:
        """Take in some differences (n, p) of one half of the draws."""
        self.total[half] += off.sum(0).cpu()
        self.squares[half] += off.square().sum(0).cpu()
        self.cubes[half] += off.pow(3).sum(0).cpu()
        self.scores.append(off.new_zeros(len(off), 0) if self.named is None else off @ self.named)
        if self.directions is not None:
            pieces = off.split(list(self.sizes.values()), 1)
            along = self.directions.to(off).split(list(self.sizes.values()))
            parts = [piece @ direction for piece, direction in zip(pieces, along, strict=True)]
            self.crossed.append(torch.stack([sum(parts), *parts], 1))  # pyright: ignore[reportArgumentType, reportCallIssue]
        self.counts[half] += len(off)
        self.largest = max(self.largest, largest)

    def turn(self) -> None:
        """The first half is over: its mean is the direction along which the second is looked at."""
        if self.directions is None:
            self.directions = self.total[0] / self.counts[0]

    def test(self, rounding: float) -> Differences:
        """All families together."""
        slack, count = rounding * self.largest, sum(self.counts)
        mean, square, cube = (sums.sum(0) / count for sums in (self.total, self.squares, self.cubes))
        variance = (square - mean.square()).clamp(min=0)
        length = math.sqrt(max(float(mean.square().sum() - CERTAIN * variance.sum() / (count - 1)), 0.0))
        named = {name: self._along(i, slack, length) for i, name in enumerate(self.names)}
        assert self.directions is not None
        pieces = self.directions.split(list(self.sizes.values()))
        lengths = torch.stack([piece.abs().sum() for piece in (self.directions, *pieces)])
        crosses = torch.cat(self.crossed)
        crossed = _p_values(crosses, slack * lengths.to(crosses))
        skewness = skewness_from(variance, cube - 3 * mean * square + 2 * mean**3)
        each = _p(mean, (variance / (count - 1)).sqrt(), skewness, slack, count)
        families = {name: along.p_value * len(named) for name, along in named.items()}
        for name, p_value in zip(["all", *self.sizes], crossed.tolist(), strict=True):
            families[f"its own mean in {name}"] = p_value * len(crossed)
        families["one coordinate"] = float(each.min()) * len(each)
        worst = min(families, key=families.__getitem__)
        return Differences(named, min(1.0, FAMILIES * families[worst]), worst, count)

    def _along(self, index: int, slack: float, length: float) -> Along:
        assert self.named is not None
        direction, scores = self.named[:, index], torch.cat(self.scores)[:, index]
        square = self.lengths[index]
        slack = slack * float(direction.abs().sum())
        p_value = float(_p_values(scores.unsqueeze(1), torch.tensor([slack]).to(scores))[0])
        error = float(scores.std()) / math.sqrt(len(scores))
        value = float(scores.mean()) / square
        share = min(1.0, abs(value) * math.sqrt(square) / length) if length > 0 else 1.0
        return Along(value, error / square, p_value, float(skewness_of(scores)), share, slack / square)


def _p_values(scores: Tensor, slack: Tensor) -> Tensor:
    """Two-sided p-values of zero means, column by column, (n, m) -> (m,)."""
    error = scores.std(0) / math.sqrt(len(scores))
    return _p(scores.mean(0), error, skewness_of(scores), slack, len(scores))


def _p(mean: Tensor, error: Tensor, skewness: Tensor, slack: Tensor | float, count: int) -> Tensor:
    """Student's, less what rounding and skewness explain; what is not finite has none."""
    t = mean.sign() * (mean.abs() - slack).clamp(min=0) / error.clamp(min=1e-300)
    t = without_skewness(t, skewness.clamp(-math.sqrt(count), math.sqrt(count)), count)
    t = torch.where(t.isnan(), math.inf, t)
    return torch.as_tensor(2 * student_tail(t.cpu().numpy(), count - 1))
