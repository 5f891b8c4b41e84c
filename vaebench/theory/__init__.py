"""What training must do: closed forms, constants, inequalities and two-sided laws.

Pure functions of tensors, arrays and callables. We minimise f, the negative of an averaged bound. Step k = 1..n reads
x_k = x_{k-1} - gamma_k g_k with E[g_k | past] = grad f(x_{k-1}) and E|g_k - grad f|^2 <= sigma^2.

Problems with known answers: `problems` (linear VAE, Gaussian and Poisson regression) and `quadrature` (multi-sample
bounds of any model with one or two latents). Constants: `constants`, certified or measured. Inequalities: `envelopes`
(SGD), `adam`, `ledger` (torch's Adam, after the fact). Laws: `predictions`. `series` holds what they share.
"""

from vaebench.theory import adam, constants, envelopes, ledger, predictions, problems, quadrature
from vaebench.theory.constants import Certified, Measured
from vaebench.theory.series import Inequality

__all__ = [
    "Certified",
    "Inequality",
    "Measured",
    "adam",
    "constants",
    "envelopes",
    "ledger",
    "predictions",
    "problems",
    "quadrature",
]
