"""An a-posteriori bound for torch's Adam, any betas and steps: the trajectory ledger (T).

With Gamma_k = diag(gamma_k / ((1-b1^k)(sqrt(v_hat_k) + eps))), c = b1/(1-b1), y_k = x_k + c (x_k - x_{k-1})
and u_k = g_k + c m_{k-1}: y_k - y_{k-1} = -Gamma_{k-1} g_k + (Gamma_{k-1} - Gamma_k) u_k, hence

    sum E|grad_k|^2_{Gamma_{k-1}} <= E f(y_{k0}) - E f(y_n) + sum E<grad_k, (Gamma_{k-1} - Gamma_k) u_k>
                                     + L sum E[c |x_{k-1}-x_{k-2}| |y_k-y_{k-1}| + |y_k-y_{k-1}|^2 / 2],

sums over k0 < k <= n (virtual iterates as in Chen, Liu, Sun & Hong, 2019; derived from the two lines
above and the L-Lipschitz gradient). Feed every step to `record_step`; it stores only sums, so runs may be long.
Begin summing after some fifty steps, or the transient of 1 - b1^k dominates.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.theory.series import Inequality


class AdamLedger(NamedTuple):
    """(T): what a run of torch's Adam may have kept of its gradients, given its own path.

    Attributes:
        first: m_k, (..., p).
        second: v_k, (..., p).
        preconditioner: diagonal of Gamma_k, (..., p).
        move: x_k - x_{k-1}, (..., p); the caller may compare it with the run's own.
        steps: k.
        left: sum of |grad_k|^2 in the norm of Gamma_{k-1}, (...).
        drift: sum of <grad_k, (Gamma_{k-1} - Gamma_k) u_k>, (...).
        curvature: sum of L times the bracket, (...).
    """

    first: Tensor
    second: Tensor
    preconditioner: Tensor
    move: Tensor
    steps: int
    left: Tensor
    drift: Tensor
    curvature: Tensor

    @classmethod
    def begin(cls, like: Tensor) -> "AdamLedger":
        """The ledger before the first step, for parameters of the shape (..., p) of `like`."""
        zero, total = torch.zeros_like(like), torch.zeros_like(like[..., 0])
        return cls(zero, zero, zero, zero, 0, total, total, total)


def record_step(
    ledger: AdamLedger,
    estimate: Tensor,
    gradient: Tensor,
    step: float,
    smoothness: Tensor | float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    start: int = 50,
) -> AdamLedger:
    """Enter one step of torch's Adam, with its betas and epsilon, outside the root, in the ledger of the steps before.

    The estimate g_k, as given to the optimizer, and the exact gradient at x_{k-1} are (..., p); the step is gamma_k,
    the learning rate, the smoothness L_k, (...) or a number. Sums run over k > k0, the `start`, at least 1.

    Returns:
        The ledger after this step.
    """
    (b1, b2), k = betas, ledger.steps + 1
    c = b1 / (1 - b1)
    first = b1 * ledger.first + (1 - b1) * estimate
    second = b2 * ledger.second + (1 - b2) * estimate.square()
    scale = step / ((1 - b1**k) * ((second / (1 - b2**k)).sqrt() + epsilon))
    move = -scale * first
    change = (ledger.preconditioner - scale) * (estimate + c * ledger.first)
    virtual = (move + c * (move - ledger.move)).norm(dim=-1)  # |y_k - y_{k-1}|
    bracket = c * ledger.move.norm(dim=-1) * virtual + virtual.square() / 2
    on = float(k > start)
    return AdamLedger(
        first,
        second,
        scale,
        move,
        k,
        ledger.left + on * (ledger.preconditioner * gradient.square()).sum(-1),
        ledger.drift + on * (gradient * change).sum(-1),
        ledger.curvature + on * smoothness * bracket,
    )


def offset(ledger: AdamLedger, beta1: float = 0.9) -> Tensor:
    """y_k - x_k = b1/(1-b1) (x_k - x_{k-1}), (..., p): add it to the parameters to evaluate f(y_k)."""
    return beta1 / (1 - beta1) * ledger.move


def sides(ledger: AdamLedger, value_at_start: Tensor, value_at_end: Tensor) -> Inequality:
    """Both sides of (T), per member (...), of f(y_{k0}) and f(y_n); the mean margin is not negative in expectation."""
    right = value_at_start - value_at_end + ledger.drift + ledger.curvature
    return Inequality(ledger.left.cpu().numpy(), right.cpu().numpy())
