"""Adam as its convergence is proved, which torch does not have."""

from collections.abc import Callable, Iterable
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

    m <- b1 m + g, v <- b2 v + g^2, x <- x - lr (1 - b1) sqrt((1 - b2^n)/(1 - b2)) m / sqrt(eps + v), b1 < b2 < 1.
    torch's Adam takes this step times 1/(1 - b1^n), as eps -> 0.

    Raises:
        ValueError: unless 0 <= b1 < b2 < 1.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float):
        if not 0 <= betas[0] < betas[1] < 1:
            raise ValueError(f"theorem_adam needs 0 <= beta1 < beta2 < 1, got {betas!r}.")
        super().__init__(parameters, {"lr": within("lr", lr, 0), "betas": betas, "eps": within("eps", eps, 0)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; the value of the closure, which evaluates the loss again, or None."""
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
