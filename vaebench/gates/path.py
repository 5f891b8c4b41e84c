"""What is kept of a run's watched steps, and how far a step is from what it should be."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.gradients.rounding import explained

ROUNDING = 1e-6  # of a step, that the claimed rule may differ by
UNITS = 2000  # in the last place of the largest gradient, that a replayed gradient may differ by


class Path(NamedTuple):
    """A run at its n watched steps; members finite throughout. All but parameters are in float64.

    Attributes:
        numbers: of the steps, increasing, (n,).
        gamma: claimed step sizes, (n,).
        before: parameters where the steps start, (n, S, p).
        raw: gradients as the optimizer was given them, (n, S, p).
        moved: (x_{k-1} - x_k) / gamma_k, (n, S, p).
        values: f where the steps start, (n, S); empty without a reference.
        exact: grad f there, (n, S, p); empty without a reference.
        end: parameters after the last of the steps 1, 2, ... that are all watched, (S, p).
        control: indices of the steps with a second, independent gradient, (c,), and those, (c, S, p).
        blocks: sizes of the parameters by name.
    """

    numbers: Tensor
    gamma: Tensor
    before: Tensor
    raw: Tensor
    moved: Tensor
    values: Tensor
    exact: Tensor
    end: Tensor
    control: tuple[Tensor, Tensor]
    blocks: dict[str, int]

    @property
    def exactness(self) -> float:
        """The relative error that an exact gradient may have."""
        return max(1e-6, explained(torch.finfo(self.before.dtype).eps))

    @property
    def blur(self) -> Tensor:
        """What the rounding of parameters may do to `moved`, (n, S, p)."""
        return torch.finfo(self.before.dtype).eps * self.before.abs().double() / self.gamma[:, None, None]

    @property
    def prefix(self) -> int:
        """How many steps from the first on are all watched."""
        ordinal = torch.arange(1, len(self.numbers) + 1, device=self.numbers.device)
        return int((self.numbers == ordinal).sum())


class Mismatch(NamedTuple):
    """The largest difference between a step and what it should be, in units of what rounding explains."""

    error: float
    step: int


@dataclass(frozen=True)
class Watch:
    """Which steps are looked at.

    Attributes:
        exact: beside the exact gradient; they make the `Path`.
        controlled: those of them that get an independent gradient.
        replayed: with the estimator under test.
        longest: a fault of so many successive steps cannot fall between the replayed ones.
    """

    exact: frozenset[int]
    controlled: frozenset[int]
    replayed: frozenset[int]
    longest: int


def mismatch(before: Tensor, expected: Tensor, actual: Tensor, sizes: dict[str, int]) -> Tensor:
    """Largest difference of two steps from one point, over 1e-6 of the step plus 16 units in the last place.

    Args:
        before: where the steps start, (n, S, p).
        expected: where the claimed rule ends, (n, S, p).
        actual: where the run ends, (n, S, p).
        sizes: of the parameters by name, which are compared each by itself.

    Returns:
        (n,), the largest over members and parameters.
    """
    parts = zip(*(tensor.split(list(sizes.values()), -1) for tensor in (before, expected, actual)), strict=True)
    errors = []
    for start, aim, found in parts:
        allowed = ROUNDING * (aim - start).abs().flatten(1).amax(1)
        allowed = allowed + 16 * torch.finfo(aim.dtype).eps * aim.abs().flatten(1).amax(1)
        errors.append((found - aim).abs().flatten(1).amax(1).double() / allowed.double().clamp(min=1e-300))
    return torch.stack(errors).amax(0)
