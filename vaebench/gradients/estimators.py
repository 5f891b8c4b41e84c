"""Gradient estimators: surrogates whose gradient estimates that of a bound.

All have one signature, (model, x, noise, objective) -> surrogate (B,): x is data (B, *event), noise (K, B, D) is
standard normal, or of the shape that `noise_shape` declares, the objective is the bound. Only the surrogate's gradient
means anything. Each calls the encoder once, on B rows, and the decoder once, on K B rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vaebench.gradients.noise import declared_noise
from vaebench.gradients.objectives import Objective
from vaebench.models import ConjugateModel, LatentModel
from vaebench.models.distributions import Gaussian
from vaebench.support.registry import Registry

Estimator = Callable[[LatentModel, Tensor, Tensor, Objective], Tensor]
ESTIMATORS: Registry[Estimator] = Registry("estimator", "vaebench.estimators")


def draw_noise(
    model: LatentModel,
    x: Tensor,
    objective: Objective,
    generator: torch.Generator | None = None,
    estimator: Estimator | None = None,
) -> Tensor:
    """Standard normal noise for one surrogate, (K, B, D) or as declared, in the dtype of x and on its device."""
    draws, numbers = declared_noise(estimator or pathwise, objective.samples, model.latents)
    return torch.randn((draws, len(x), numbers), generator=generator, dtype=x.dtype, device=x.device)


@ESTIMATORS.register
def pathwise(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
    """Differentiate through the samples (Kingma & Welling, 2014), for any alpha and beta."""
    q = model.posterior(x)
    return objective.bound(objective.log_weights(model, x, _samples(q, noise, objective), q))


@ESTIMATORS.register
def analytic_kl(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
    """Pathwise at alpha = 1, the Kullback-Leibler term in closed form (Kingma & Welling, 2014, eq. 10)."""
    _require_elbo("analytic_kl", objective)
    q = model.posterior(x)
    log_likelihood = model.likelihood(_samples(q, noise, objective)).log_prob(x)
    return log_likelihood.mean(0) - objective.beta * q.kl_to_standard_normal()


@ESTIMATORS.register
def doubly_reparameterized(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
    """Drop the score: STL at alpha = 1 (Roeder et al., 2017), DReG at 0 (Tucker et al., 2019).

    A hook on z scales in the backward pass, so the decoder runs once. Under vmap differentiated from outside torch
    would drop the hook without a word, and z does not require a gradient there; torch.compile cannot trace it. Then the
    weights come first, from one more pass through the decoder.

    Returns:
        The surrogate: sample k's path gradient is scaled by w_k (1 - beta (1 - alpha)(1 - w_k)), w the normalised
        weights, and the decoder's gradient by w_k.
    """
    q = model.posterior(x)
    z, frozen = _samples(q, noise, objective), q.detach()
    if z.requires_grad and not torch.compiler.is_compiling():
        z.register_hook(lambda grad: damping * grad)
    else:
        with torch.no_grad():
            damping = _damping(objective, objective.weights(objective.log_weights(model, x, z, frozen)))
        z = z.detach() + damping * (z - z.detach())
    log_w = objective.log_weights(model, x, z, frozen)
    w = objective.weights(log_w.detach())
    damping = _damping(objective, w)
    return (w * log_w).sum(0)


@ESTIMATORS.register
def sticking_the_landing(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
    """`doubly_reparameterized` under the name it has at alpha = 1, and refused below (Roeder et al., 2017)."""
    _require_elbo("sticking_the_landing", objective)
    return doubly_reparameterized(model, x, noise, objective)


@ESTIMATORS.register
def score_function(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
    """Differentiate the density, not the samples (REINFORCE; Ranganath et al., 2014), for any alpha and beta.

    Returns:
        The surrogate. A sample's learning signal is the bound; at alpha = 1 the bound is a sum over samples, and
        only a sample's own term is kept.
    """

    def signal(log_w: Tensor) -> Tensor:
        return log_w / len(log_w) if objective.alpha == 1 else objective.bound(log_w).expand_as(log_w)

    return _score_surrogate(model, x, noise, objective, signal)


@ESTIMATORS.register
def leave_one_out(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
    """The score function with the other samples as baseline: RLOO at alpha = 1, VIMCO at 0 (Mnih & Rezende, 2016).

    Returns:
        The surrogate. The signal of sample k is the bound less the bound in which log w_k is replaced by the mean
        of the others; at alpha = 1 this is (log w_k - mean of the others) / K (Kool et al., 2019). Memory of order
        K^2 B numbers.

    Raises:
        ValueError: if K = 1.
    """
    if objective.samples < 2:
        raise ValueError("leave_one_out needs at least 2 samples, got 1; use score_function or pathwise.")

    def signal(log_w: Tensor) -> Tensor:
        samples = len(log_w)
        others = (log_w.sum(0) - log_w) / (samples - 1)
        left_out = torch.eye(samples, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
        return objective.bound(log_w) - objective.bound(torch.where(left_out, others, log_w.unsqueeze(1)))

    return _score_surrogate(model, x, noise, objective, signal)


@ESTIMATORS.register
def exact(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
    """The closed-form (beta-)ELBO of a `ConjugateModel`, alpha = 1: no variance in z. The noise is not used."""
    _require_elbo("exact", objective)
    if not isinstance(model, ConjugateModel):
        raise ValueError(
            f"exact needs a model with expected_log_likelihood, {type(model).__name__} has none; use analytic_kl."
        )
    q = model.posterior(x)
    return model.expected_log_likelihood(x, q) - objective.beta * q.kl_to_standard_normal()


def _samples(q: Gaussian, noise: Tensor, objective: Objective) -> Tensor:
    expected = (objective.samples, *q.mean.shape)
    if tuple(noise.shape) != expected:
        raise ValueError(f"noise must have shape (K, B, D) = {expected}, got {tuple(noise.shape)}; see draw_noise.")
    return q.transport(noise)


def _score_surrogate(
    model: LatentModel, x: Tensor, noise: Tensor, objective: Objective, signal: Callable[[Tensor], Tensor]
) -> Tensor:
    q = model.posterior(x)
    z = _samples(q, noise, objective).detach()
    log_w = objective.log_weights(model, x, z, q.detach())
    fixed = log_w.detach()
    score = signal(fixed) - objective.beta * objective.weights(fixed)
    return objective.bound(log_w) + (score * q.log_prob(z)).sum(0)


def _damping(objective: Objective, w: Tensor) -> Tensor:
    """What each sample's path gradient is multiplied with beside w, (K, B, 1)."""
    return (1 - objective.beta * (1 - objective.alpha) * (1 - w)).unsqueeze(-1)


def _require_elbo(name: str, objective: Objective) -> None:
    if objective.alpha != 1:
        raise ValueError(
            f"{name} is defined for the ELBO, alpha = 1, and would be biased for alpha = {objective.alpha:g}; "
            "use pathwise or doubly_reparameterized."
        )
