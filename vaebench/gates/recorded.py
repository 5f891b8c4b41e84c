"""What a training loop records of its steps, held against the steps that it told of."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaebench.gates.path import UNITS, Mismatch
from vaebench.training.records import Checkpoint, Step


def loss_mismatch(found: Tensor, expected: Tensor) -> Tensor:
    """Differences of losses (n, S) from what they should be, in nats.

    Returns:
        The largest over members in units of what rounding explains, (n,). Where a loss should not be finite any other
        may stand: the run has diverged, and another gate says so.
    """
    if found.shape != expected.shape:
        return torch.full(expected.shape[:1], torch.inf)
    unit = UNITS * torch.finfo(expected.dtype).eps * (1 + expected.abs())
    errors = torch.where(expected.isfinite(), (found.to(expected) - expected).abs() / unit, 0.0)
    return errors.nan_to_num(torch.inf, torch.inf).amax(1)


@dataclass
class Recorded:
    """Losses and squared norms of the gradients of every step, as they were told.

    Attributes:
        losses: of the steps, (S,) each.
        squares: of the gradients, (S,) each.
        compared: steps that a checkpoint was held against.
    """

    losses: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)
    compared: int = 0

    def enter(self, step: Step, gradients: Tensor) -> None:
        """Take in a step and its gradients, (S, p)."""
        self.losses.append(step.losses.detach().clone())
        self.squares.append(gradients.square().sum(1))

    def compare(self, checkpoint: Checkpoint) -> Mismatch | None:
        """Hold a checkpoint against the steps since the last one.

        Args:
            checkpoint: of the loop; one that records nothing of its steps claims nothing.

        Returns:
            The largest mismatch; None if there is nothing to compare.
        """
        first, count = self.compared, len(checkpoint.losses)
        self.compared = checkpoint.state.step
        if not count or self.compared > len(self.losses):
            return None
        told = (torch.stack(kept[first : self.compared]) for kept in (self.losses, self.squares))
        pairs = zip((checkpoint.losses, checkpoint.grad_sq), told, strict=True)
        errors = torch.stack([loss_mismatch(mine.detach(), theirs) for mine, theirs in pairs]).amax(0)
        worst = int(errors.argmax())
        return Mismatch(float(errors[worst]), first + worst + 1)
