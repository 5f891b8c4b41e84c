"""Objectives: a bound is a function of the log-weight matrix, shape (K, B)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaebench.models import LatentModel
from vaebench.models.distributions import Gaussian, standard_normal_log_prob
from vaebench.support.checks import positive_integer, within

NEGLIGIBLE = 64.0  # nats below the largest: e^-64 = 2e-28 is lost beside 1 in float64


@dataclass(frozen=True)
class Objective:
    """The VR-IWAE bound of the beta-weighted log-weights (Daudel et al., 2023).

    log w = log p(x|z) + beta (log p(z) - log q(z|x)) and
    L = 1/(1 - alpha) E log (1/K) sum_k w_k^{1 - alpha}: the IWAE bound (Burda et al., 2016) at alpha = 0, its
    limit the ELBO at alpha = 1, the beta-ELBO (Higgins et al., 2017) at alpha = 1 and beta != 1.

    Attributes:
        samples: K.
        alpha: in [0, 1].
        beta: weight of the Kullback-Leibler term, at least 0.

    Raises:
        ValueError: if one of them is out of range.

    >>> Objective(samples=5, alpha=0).name
    'IWAE (K=5)'
    """

    samples: int = 1
    alpha: float = 1.0
    beta: float = 1.0

    def __post_init__(self):
        positive_integer("samples", self.samples)
        within("alpha", self.alpha, 0, 1)
        within("beta", self.beta, 0)

    @property
    def name(self) -> str:
        """The bound's name in the literature."""
        limits = {0.0: "IWAE", 1.0: "ELBO"}
        bound = limits.get(float(self.alpha), f"VR-IWAE (alpha={self.alpha:g})")
        prefix = "" if self.beta == 1 else f"beta={self.beta:g} "
        return f"{prefix}{bound} (K={self.samples})"

    def log_weights(self, model: LatentModel, x: Tensor, z: Tensor, q: Gaussian) -> Tensor:
        """log w of samples z (K, B, D) drawn from q, for x (B, *event); (K, B) in nats."""
        ratio = standard_normal_log_prob(z) - q.log_prob(z)
        return model.likelihood(z).log_prob(x).add(ratio, alpha=self.beta)

    def bound(self, log_w: Tensor) -> Tensor:
        """The bound's one-draw estimate, finite for any finite log-weights and continuous in alpha up to the ELBO.

        With t = 1 - alpha, M the largest log-weight and e = log w - M it is M + log(mean exp(t e)) / t. Where the mean
        is above 1/2 the logarithm is log1p(mean expm1(t e)), which loses nothing to rounding however small t is.

        Returns:
            (...) in nats, of log-weights (K, ...); half precision is computed in float32.
        """
        if self.alpha == 1:
            return log_w.mean(0)
        top, tempered = self._tempered(log_w)
        below, mean = torch.expm1(tempered).mean(0), tempered.exp().mean(0)
        log_mean = torch.where(below > -0.5, torch.log1p(below.clamp(min=-0.5)), mean.log())
        return (top.squeeze(0) + log_mean / (1 - self.alpha)).to(log_w.dtype)

    def weights(self, log_w: Tensor) -> Tensor:
        """Normalised weights, the bound's derivative in log_w (K, ...): softmax of (1 - alpha) log w over K."""
        return torch.softmax(self._tempered(log_w)[1], 0).to(log_w.dtype)

    def _tempered(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        """The largest log-weight M (1, ...), a constant, and (1 - alpha)(log w - M), in float32 at least."""
        wide = log_w.to(torch.promote_types(log_w.dtype, torch.float32))
        top = wide.detach().amax(0, keepdim=True)
        top = top.nan_to_num(0.0, 0.0, 0.0)
        tempered = (1 - self.alpha) * (wide - top)
        # of weights too small to count, the gradients would be denormal, and slow
        return top, tempered.masked_fill(tempered < -NEGLIGIBLE, -math.inf)
