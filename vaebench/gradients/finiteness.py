"""Gradients that overflow, or that a logarithm of vanishing weights makes no number, before anything long is begun."""

import torch
from torch import Tensor
from torch.func import grad

from vaebench.gradients.estimators import pathwise
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.trial import estimator_name, few_rows
from vaebench.support.repeatable import preserved

FAR = 100.0  # standard deviations, at which no exponential holds a log-weight


def require_finite(loss: Loss, data: Tensor) -> None:
    """Refuse a loss whose gradient at its own parameters, at a few rows, has no finite fourth moment: no test has.

    One is refused too that is not finite at noise a hundred standard deviations away, where weights are too small for
    numbers and `pathwise` is finite: its logarithm of a mean has not taken the largest weight out.

    Raises:
        ValueError: that names the parameter, or says what to do.
    """
    x, noise = few_rows(loss, data)
    with preserved(loss), torch.enable_grad():
        found = grad(loss_function(loss))(own_parameters(loss), x, noise)
    for name, gradient in found.items():
        if not (largest := gradient.double().abs().max()).pow(4).isfinite():
            raise ValueError(
                f"The gradient of {name.removeprefix('model.')!r} by {estimator_name(loss.estimator).lower()} is "
                f"{float(largest):.2g} at the start, too large to be judged; mend the model, or use a smaller beta."
            )
    trusted, far = Loss(loss.model, pathwise, loss.objective), torch.where(noise < 0, noise - FAR, noise + FAR)
    if _is_finite(trusted, x, trusted.own_part(far)) and not _is_finite(loss, x, far):
        raise ValueError(
            f"{estimator_name(loss.estimator)} has no finite gradient where log-weights are far below zero, and "
            "pathwise has; take the largest one out before the exponential, as torch.logsumexp and objective.bound do."
        )


def _is_finite(loss: Loss, x: Tensor, noise: Tensor) -> bool:
    with preserved(loss), torch.enable_grad():
        found = grad(loss_function(loss))(own_parameters(loss), x, noise)
    return all(bool(gradient.isfinite().all()) for gradient in found.values())
