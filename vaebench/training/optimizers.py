"""Optimizers by name: torch.optim's, and the Adam of a theorem.

Each takes the tensors to update and lr, the step size gamma, which a schedule overwrites at every step; betas are the
decays of the moments, eps is added to the root. All update elementwise, so that one optimizer on stacked parameters is
one optimizer per member of a fleet. `foreach` is chosen explicitly: torch's automatic choice depends on the device and
would move the counted cost.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaebench.support.registry import Registry
from vaebench.training.adam import TheoremAdam

OptimizerFactory = Callable[[list[Tensor], float], Optimizer]
OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("optimizer", "vaebench.optimizers")


@OPTIMIZERS.register
def sgd(parameters: Iterable[Tensor], lr: float) -> Optimizer:
    """x <- x - lr g."""
    return torch.optim.SGD(parameters, lr=lr, foreach=True)


@OPTIMIZERS.register
def adam(
    parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Optimizer:
    """Adam (Kingma & Ba, 2015)."""
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, foreach=True)


@OPTIMIZERS.register
def fused_adam(
    parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Optimizer:
    """`adam` in one kernel: steps of small nets are shorter by up to a third.

    Returns:
        The optimizer, which rounds the last elements of a tensor otherwise than those before, as its loop is
        vectorised, and refuses parameters with gaps in memory at its first step.
    """
    rule = torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, fused=True)
    rule.register_step_pre_hook(_lay_out)
    return rule


@OPTIMIZERS.register
def amsgrad(
    parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Optimizer:
    """Adam with the running maximum of the second moment (Reddi et al., 2018)."""
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, amsgrad=True, foreach=True)


@OPTIMIZERS.register
def adagrad(parameters: Iterable[Tensor], lr: float, eps: float = 1e-10) -> Optimizer:
    """Adagrad (Duchi et al., 2011)."""
    return torch.optim.Adagrad(parameters, lr=lr, eps=eps, foreach=True)


@OPTIMIZERS.register
def rmsprop(parameters: Iterable[Tensor], lr: float, alpha: float = 0.99, eps: float = 1e-8) -> Optimizer:
    """RMSprop (Tieleman & Hinton, 2012); alpha is the decay of the second moment."""
    return torch.optim.RMSprop(parameters, lr=lr, alpha=alpha, eps=eps, foreach=True)


@OPTIMIZERS.register
def theorem_adam(
    parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Optimizer:
    """The Adam of Defossez et al. (2022), b1 < b2 < 1 and eps inside the root."""
    return TheoremAdam(parameters, lr, betas, eps)


def _lay_out(optimizer: Optimizer, *_: object) -> None:
    """Bring gradients and moments into their parameter's layout.

    torch's fused kernel takes them number by number as they lie in memory, and so gives those of a convolution with
    channels last to other weights (pytorch issues 106951 and 110758).
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = _like(parameter.grad, parameter)
            state = optimizer.state.get(parameter, {})
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state and state[name].stride() != parameter.stride():
                    state[name] = _like(state[name], parameter)


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    made = torch.empty_like(parameter).copy_(tensor).detach()
    if made.stride() != parameter.stride():
        where = f"strides {parameter.stride()} of shape {tuple(parameter.shape)}"
        raise ValueError(f"fused_adam needs parameters without gaps in memory, got {where}; use `adam`.")
    return made


def check_elementwise(optimizer: OptimizerFactory) -> None:
    """Refuse an optimizer whose steps are not each member's own, of the gradients that it was given alone.

    Raises:
        ValueError: if two optimizers of equal gradients step otherwise, or one member's step changes with another's
            gradient.
    """

    def first_member(other: float) -> Tensor:
        stacked = [torch.zeros(shape, dtype=torch.float64, device="cpu") for shape in ((2, 2), (2,))]
        rule = optimizer(stacked, 0.1)
        for _ in range(2):
            for tensor in stacked:
                tensor.grad = torch.ones_like(tensor)
                tensor.grad[1] = other
            rule.step()
        return torch.cat([tensor[0].flatten() for tensor in stacked])

    alone = first_member(0.0)
    if not torch.equal(alone, first_member(0.0)):
        raise ValueError(
            "The optimizer steps otherwise when it is made again and given the same gradients: it draws random "
            "numbers, or keeps state outside of itself; keep it in the optimizer's own state."
        )
    if not torch.equal(alone, first_member(1e30)):
        raise ValueError(
            "The optimizer lets one member's gradient change another's step, as clipping by the global norm does; "
            "use an elementwise optimizer, or train one seed per fleet."
        )
