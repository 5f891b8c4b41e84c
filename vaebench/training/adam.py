"""Adam in two forms that torch does not have: as its convergence is proved, and fused with few counters."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaebench.support.checks import within


def _evaluated(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class TheoremAdam(Optimizer):
    """Adam as its convergence is proved (Defossez et al., 2022, A Simple Convergence Proof of Adam and Adagrad).

    m <- b1 m + g, v <- b2 v + g^2, x <- x - lr (1 - b1) sqrt((1 - b2^n)/(1 - b2)) m / sqrt(eps + v).
    torch's Adam takes this step times 1/(1 - b1^n), as eps -> 0.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float):
        """Set up.

        Args:
            parameters: tensors to update.
            lr: gamma.
            betas: b1 < b2 < 1.
            eps: inside the root.

        Raises:
            ValueError: unless 0 <= b1 < b2 < 1.
        """
        if not 0 <= betas[0] < betas[1] < 1:
            raise ValueError(f"theorem_adam needs 0 <= beta1 < beta2 < 1, got {betas!r}.")
        super().__init__(parameters, {"lr": within("lr", lr, 0), "betas": betas, "eps": within("eps", eps, 0)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step.

        Args:
            closure: evaluates the loss again, as in torch.

        Returns:
            The closure's value, or None.
        """
        loss = _evaluated(closure)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        (b1, b2), state, grad = group["betas"], self.state[parameter], parameter.grad
        if not state:
            state.update(step=0, m=torch.zeros_like(parameter), v=torch.zeros_like(parameter))
        state["step"] += 1
        state["m"].mul_(b1).add_(grad)
        state["v"].mul_(b2).addcmul_(grad, grad)
        rate = group["lr"] * (1 - b1) * ((1 - b2 ** state["step"]) / (1 - b2)) ** 0.5
        parameter.addcdiv_(state["m"], (state["v"] + group["eps"]).sqrt_(), value=-rate)


@dataclass
class Moments:
    """State of those parameters of a group that have a gradient, in their order.

    Attributes:
        parameters: what is updated.
        means: decaying means of the gradients.
        squares: of their squares.
        steps: taken by each parameter, 0-dimensional.
        counters: the distinct tensors among `steps`.
        begun: their values when they were gathered.
        rate, root: lr / (1 - b1^n) and 1 / sqrt(1 - b2^n) of step n, filled in by `begin_step`.
        since: steps taken since they were gathered, so that nobody waits for a device to know.
    """

    parameters: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]
    counters: list[Tensor]
    begun: list[float]
    rate: Tensor
    root: Tensor
    since: int = 0

    @cached_property
    def state(self) -> list[Tensor]:
        """Everything but the parameters, if all of them took as many steps."""
        return [*self.means, *self.squares, *self.counters, self.rate, self.root]

    @cached_property
    def _strides(self) -> list[tuple[int, ...]]:
        return [p.stride() for p in self.parameters]

    def laid_out(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Gradients that there are, in memory as the parameters are: the fused kernel goes through both in a row."""
        found = zip((g for g in gradients if g is not None), self.parameters, self._strides, strict=True)
        return [g if g.stride() == strides else _laid_out(g, p) for g, p, strides in found]


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    return torch.empty_like(like).copy_(tensor)


def adam_update(
    parameter: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, rate: Tensor, root: Tensor,
    betas: tuple[float, float], eps: float,
) -> None:  # fmt: skip
    """Adam's step (Kingma & Ba, 2015, section 2), in place, elementwise.

    Args:
        parameter: updated.
        mean: decaying mean of the gradients, updated.
        square: of their squares, updated.
        gradient: of the loss.
        rate: lr / (1 - b1^n), 0-dimensional.
        root: 1 / sqrt(1 - b2^n), 0-dimensional.
        betas: b1, b2.
        eps: added to the root.
    """
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    parameter.sub_(rate * mean / (square.sqrt() * root + eps))


class FusedAdam(Optimizer):
    """torch's fused Adam, bit for bit, with one counter of steps for all parameters that took as many.

    torch.optim.Adam adds one to a counter of each parameter, and looks at all of them in Python first: 35 us a step of
    twelve parameters, of 57 in all. State and its names are torch's. What is not: torch's takes gradients number by
    number as they lie in memory, and so gives those of a convolution with channels last to other weights.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float):
        """Set up.

        Args:
            parameters: tensors to update.
            lr: gamma.
            betas: decay of the two moments, below 1.
            eps: added to the root.

        Raises:
            ValueError: unless lr and eps are at least 0 and 0 <= b1, b2 < 1.
        """
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"fused_adam needs 0 <= beta < 1 for both betas, got {betas!r}.")
        self._ready: dict[int, tuple[tuple[bool, ...], Moments]] = {}
        super().__init__(parameters, {"lr": within("lr", lr, 0), "betas": betas, "eps": within("eps", eps, 0)})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, as in torch.

        Args:
            state_dict: of this class, or of torch.optim.Adam.
        """
        super().load_state_dict(state_dict)
        self._ready.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; parameters without a gradient stay.

        Args:
            closure: evaluates the loss again, as in torch.

        Returns:
            The closure's value, or None.
        """
        loss = _evaluated(closure)
        for number, group in enumerate(self.param_groups):
            gradients = [p.grad for p in group["params"]]
            moments = self._moments(number, tuple(g is not None for g in gradients))
            for counter in moments.counters:
                counter += 1
            moments.since += 1
            if moments.parameters:
                b1, b2 = group["betas"]
                torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage] (the kernel has no public name)
                    moments.parameters, moments.laid_out(gradients), moments.means, moments.squares, [],
                    moments.steps, lr=group["lr"], beta1=b1, beta2=b2, weight_decay=0.0, eps=group["eps"],
                    amsgrad=False, maximize=False,
                )  # fmt: skip
        return loss

    def begin_step(self, parameters: Sequence[Tensor]) -> Moments:
        """What `adam_update` of all parameters needs, which is the caller's to do, as is to advance the counter.

        Args:
            parameters: all of the optimizer's, in its order.

        Returns:
            The state, with the step's rate and root.

        Raises:
            ValueError: if these are others, or some have taken fewer steps.
        """
        (group, *others), given = self.param_groups, list(parameters)
        if others or len(group["params"]) != len(given) or not all(map(is_, group["params"], given)):
            raise ValueError("A compiled step updates all parameters of an optimizer of one group, in its order.")
        moments = self._moments(0, (True,) * len(given))
        if len(moments.begun) > 1:
            numbers = sorted(moments.begun)
            raise ValueError(f"A compiled step needs parameters that took as many steps, got {numbers}; use `step`.")
        moments.since += 1
        (b1, b2), number = group["betas"], moments.begun[0] + moments.since
        moments.rate.fill_(group["lr"] / (1 - b1**number))
        moments.root.fill_((1 - b2**number) ** -0.5)
        return moments

    def _moments(self, number: int, present: tuple[bool, ...]) -> Moments:
        """The state of the parameters that have a gradient, gathered anew when these are others than before."""
        known, moments = self._ready.get(number, (None, None))
        if moments is None or known != present:
            parameters = [p for p, there in zip(self.param_groups[number]["params"], present, strict=True) if there]
            moments = self._gathered(parameters)
            self._ready[number] = present, moments
        return moments

    def _gathered(self, parameters: list[Tensor]) -> Moments:
        counters: dict[float, Tensor] = {}
        for parameter in parameters:
            state = self.state[parameter]
            taken = float(state.get("step", 0))
            counter = torch.tensor(taken, dtype=torch.float32, device=parameter.device)
            state["step"] = counters.setdefault(taken, counter)
            for name in ("exp_avg", "exp_avg_sq"):
                kept = state.get(name, torch.zeros_like(parameter))
                state[name] = kept if kept.stride() == parameter.stride() else _laid_out(kept, parameter)
                if state[name].stride() != parameter.stride():
                    where = f"strides {parameter.stride()} of shape {tuple(parameter.shape)}"
                    raise ValueError(f"fused_adam needs parameters without gaps in memory, got {where}; use `adam`.")
        means, squares, steps = (
            [self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        rate, root = (means or [torch.zeros(())])[0].new_zeros(2).unbind()
        return Moments(parameters, means, squares, steps, list(counters.values()), list(counters), rate=rate, root=root)
