"""From a model and data to a gradient.

`objectives` are functions of the log-weight matrix (K, B), `estimators` make surrogates whose gradient estimates that
of a bound, `loss` is what training minimises, `memory` divides the batch or the samples.
"""

from vaebench.gradients.estimators import (
    ESTIMATORS,
    Estimator,
    analytic_kl,
    doubly_reparameterized,
    draw_noise,
    exact,
    leave_one_out,
    pathwise,
    score_function,
    sticking_the_landing,
)
from vaebench.gradients.loss import Loss, Parameters, loss_function, own_parameters
from vaebench.gradients.memory import chunked, micro_batched
from vaebench.gradients.noise import noise_shape
from vaebench.gradients.objectives import Objective

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Loss",
    "Objective",
    "Parameters",
    "analytic_kl",
    "chunked",
    "doubly_reparameterized",
    "draw_noise",
    "exact",
    "leave_one_out",
    "loss_function",
    "micro_batched",
    "noise_shape",
    "own_parameters",
    "pathwise",
    "score_function",
    "sticking_the_landing",
]
