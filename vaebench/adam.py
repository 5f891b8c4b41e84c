"""Adam in two forms that torch does not have: as its convergence is proved, and fused with few counters."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaebench.checks import within


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


class _Moments(NamedTuple):
    """Of the parameters of a group that have a gradient; `counters` are the distinct ones among `steps`."""

    parameters: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]
    counters: list[Tensor]


class FusedAdam(Optimizer):
    """torch's fused Adam, bit for bit, with one counter of steps for all parameters that took as many.

    torch.optim.Adam adds one to a counter of each parameter, and looks at all of them in Python first: 35 us a step of
    twelve parameters, of 57 in all. State and its names are torch's.
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
        self._ready: dict[int, tuple[tuple[bool, ...], _Moments]] = {}
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
            if moments.parameters:
                b1, b2 = group["betas"]
                torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage] (the kernel has no public name)
                    moments.parameters, [g for g in gradients if g is not None], moments.means, moments.squares, [],
                    moments.steps, lr=group["lr"], beta1=b1, beta2=b2, weight_decay=0.0, eps=group["eps"],
                    amsgrad=False, maximize=False,
                )  # fmt: skip
        return loss

    def _moments(self, number: int, present: tuple[bool, ...]) -> _Moments:
        """The state of the parameters that have a gradient, gathered anew when these are others than before."""
        known, moments = self._ready.get(number, (None, None))
        if moments is None or known != present:
            parameters = [p for p, there in zip(self.param_groups[number]["params"], present, strict=True) if there]
            moments = self._gathered(parameters)
            self._ready[number] = present, moments
        return moments

    def _gathered(self, parameters: list[Tensor]) -> _Moments:
        counters: dict[float, Tensor] = {}
        for parameter in parameters:
            state = self.state[parameter]
            taken = float(state.get("step", 0))
            counter = torch.tensor(taken, dtype=torch.float32, device=parameter.device)
            state["step"] = counters.setdefault(taken, counter)
            for name in ("exp_avg", "exp_avg_sq"):
                if name not in state:
                    state[name] = torch.zeros_like(parameter)
        means, squares, steps = (
            [self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        return _Moments(parameters, means, squares, steps, list(counters.values()))
