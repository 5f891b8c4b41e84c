"""Faults of the ELBO's gradient: estimators that are almost `analytic_kl`."""

from dataclasses import replace

import torch

from tests.convergence.faults.catalogue import fault
from vaebench.gradients.estimators import analytic_kl, doubly_reparameterized, leave_one_out, pathwise
from vaebench.gradients.objectives import Objective
from vaebench.models import LinearVAE
from vaebench.models.distributions import Gaussian


def parts(model, x, noise, q=None):
    """Reconstruction and divergence, (B,) each; samples from q if it is given."""
    true = model.posterior(x)
    q = true if q is None else q
    return model.likelihood(q.transport(noise)).log_prob(x).mean(0), true.kl_to_standard_normal()


def with_kl_times(factor):
    def estimator(model, x, noise, objective):
        fit, divergence = parts(model, x, noise)
        return fit - factor * divergence

    return lambda base: {"estimator": estimator, "reported": estimator}


fault("elbo", "none", source="control")(lambda base: {})
fault("elbo", "pathwise (correct)", source="control")(lambda base: {"estimator": pathwise, "law": "pathwise"})
fault("elbo", "sticking the landing, K=2 (correct)", source="control")(
    lambda base: {"estimator": doubly_reparameterized, "law": "doubly_reparameterized", "objective": Objective(2)}
)
fault("elbo", "leave one out, K=4 (correct)", source="control")(
    lambda base: {"estimator": leave_one_out, "law": "leave_one_out", "objective": Objective(4)}
)
fault("elbo", "kl sign")(with_kl_times(-1.0))
fault("elbo", "kl x0.5")(with_kl_times(0.5))
fault("elbo", "kl x1.05")(with_kl_times(1.05))
fault("elbo", "kl x0")(with_kl_times(0.0))


@fault("elbo")
def z_detached(model, x, noise, objective):
    fit, divergence = parts(model, x, noise, model.posterior(x).detach())
    return fit - divergence


@fault("elbo")
def eta_stopped(model, x, noise, objective):
    q = model.posterior(x)
    q = Gaussian(q.mean, q.log_std.detach())
    return model.likelihood(q.transport(noise)).log_prob(x).mean(0) - q.kl_to_standard_normal()


@fault("elbo")
def encoder_frozen(model, x, noise, objective):
    q = model.posterior(x).detach()
    return model.likelihood(q.transport(noise)).log_prob(x).mean(0) - q.kl_to_standard_normal()


@fault("elbo", "std = exp(logvar)")
def wide_samples(model, x, noise, objective):
    q = model.posterior(x)
    fit, divergence = parts(model, x, noise, Gaussian(q.mean, 2 * q.log_std))
    return fit - divergence


@fault("elbo", "missing 1/2 in the reconstruction")
def double_reconstruction(model, x, noise, objective):
    fit, divergence = parts(model, x, noise)
    return 2 * fit - divergence


@fault("elbo", "reconstruction mean over pixels")
def mean_reconstruction(model, x, noise, objective):
    fit, divergence = parts(model, x, noise)
    return fit / x[0].numel() - divergence


@fault("elbo")
def sum_over_batch(model, x, noise, objective):
    return len(x) * analytic_kl(model, x, noise, objective)


def scaled(factor):
    def estimator(model, x, noise, objective):
        value = analytic_kl(model, x, noise, objective)
        return factor * value + (1 - factor) * value.detach()

    return lambda base: {"estimator": estimator}


fault("elbo", "gradient x0.9")(scaled(0.9))
fault("elbo", "gradient x0.99", source="further", note="1 % of scale is near the resolution of the gates")(scaled(0.99))


@fault("elbo", "eps shared in B")
def shared_noise(model, x, noise, objective):
    return analytic_kl(model, x, noise[:, :1].expand_as(noise), objective)


FROZEN = torch.randn(64, 256, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@fault("elbo", "eps frozen")
def frozen_noise(model, x, noise, objective):
    samples, size, latents = noise.shape
    return analytic_kl(model, x, FROZEN[:samples, :size, :latents], objective)


@fault("elbo", "eps shared in pairs", source="further")
def paired_noise(model, x, noise, objective):
    return analytic_kl(model, x, noise[:, : len(x) // 2].repeat(1, 2, 1), objective)


@fault("elbo", "decoder held against another row", source="further")
def another_row(model, x, noise, objective):
    q = model.posterior(x)
    return model.likelihood(q.transport(noise)).log_prob(x.roll(1, 0)).mean(0) - q.kl_to_standard_normal()


@fault("elbo", "variance for std in log q", source="further")
def wrong_log_q(model, x, noise, objective):
    q = model.posterior(x)
    return objective.log_weights(model, x, q.transport(noise), Gaussian(q.mean, 2 * q.log_std)).mean(0)


@fault("elbo", "wrong log-normaliser", source="further")
def wrong_constant(model, x, noise, objective):
    return analytic_kl(model, x, noise, objective) + 0.5 * torch.tensor(2 * torch.pi).log()


@fault("elbo", "beta = 2 on log p(z) only", source="further")
def half_beta(base):
    objective = Objective(beta=2.0)

    def estimator(model, x, noise, objective):
        q = model.posterior(x)
        z = q.transport(noise)
        missing = (objective.beta - 1) * q.log_prob(z)
        return (objective.log_weights(model, x, z, q) + missing).mean(0)

    return {"estimator": estimator, "reported": estimator, "objective": objective}


def in_precision(dtype):
    def estimator(model, x, noise, objective):
        q = model.posterior(x)
        z = q.transport(noise).to(dtype)
        mean = z @ model.W.to(dtype).mT
        fit = Gaussian(mean.to(x.dtype), model.head(mean.to(x.dtype)).log_std).log_prob(x).mean(0)
        return fit - q.kl_to_standard_normal()

    return lambda base: {"estimator": estimator}


small = "rounding, not bias: a relative error of 1e-7"
fault("elbo", "decoder in float32", source="further", note=small)(in_precision(torch.float32))
fault("elbo", "decoder in bfloat16", source="further", note="rounding of 0.4 %, nearly unbiased")(
    in_precision(torch.bfloat16)
)


@fault("elbo", "posterior of the model: std = exp(logvar)", source="further")
def wrong_model(base):
    class Wide(LinearVAE):
        def posterior(self, x):
            q = super().posterior(x)
            return Gaussian(q.mean, 2 * q.log_std)

    true = base["model"]
    wrong = Wide(true.W.detach().clone(), true.V.detach().clone(), true.eta.detach().clone(), 0.5)
    return {"model": wrong, "reference": true}


@fault("elbo", "self-included baseline, K=4", source="further")
def self_included(base):
    def estimator(model, x, noise, objective):
        q = model.posterior(x)
        z = q.transport(noise).detach()
        log_w = objective.log_weights(model, x, z, q)
        signal = (log_w - log_w.mean(0)).detach() / len(log_w)
        return objective.bound(log_w) + (signal * q.log_prob(z)).sum(0)

    return {"estimator": estimator, "reported": pathwise, "law": "none", "objective": Objective(4)}


@fault("elbo", "KL warm-up over 100 calls", source="further")
def warm_up(base):
    calls = []

    def estimator(model, x, noise, objective):
        calls.append(None)
        return analytic_kl(model, x, noise, replace(objective, beta=min(1.0, len(calls) / 100)))

    return {"estimator": estimator}
