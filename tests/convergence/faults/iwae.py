"""Faults of the multi-sample bound's gradient: estimators that are almost `pathwise` at alpha = 0."""

import math
from dataclasses import replace

import torch

from tests.convergence.faults.catalogue import fault
from vaebench.gradients.estimators import analytic_kl, doubly_reparameterized, pathwise


def log_weights(model, x, noise, objective, frozen=False, stopped=False):
    q = model.posterior(x)
    z = q.transport(noise)
    z = z.detach() if stopped else z
    return objective.log_weights(model, x, z, q.detach() if frozen else q)


def reports(estimator):
    return lambda base: {"reported": estimator}


fault("iwae", "none", source="control")(lambda base: {})
fault("iwae", "doubly reparameterized (correct)", source="control")(
    lambda base: {"estimator": doubly_reparameterized, "law": "doubly_reparameterized"}
)
fault("iwae", "missing 1/K in the logarithm")(
    reports(lambda model, x, noise, o: pathwise(model, x, noise, o) + math.log(o.samples))
)


@fault("iwae", "weighted mean reported as the value")
def authors_value(base):
    def value(model, x, noise, objective):
        log_w = log_weights(model, x, noise, objective)
        return (objective.weights(log_w) * log_w).sum(0) - math.log(objective.samples) / len(x)

    return {"reported": value}


def own_value(bed, name, **about):
    """Register an estimator that reports its own surrogate as the bound."""

    def register(estimator):
        fault(bed, name, **about)(lambda base: {"estimator": estimator, "reported": estimator})
        return estimator

    return register


@own_value("iwae", "uniform weights")
def uniform_weights(model, x, noise, objective):
    return log_weights(model, x, noise, objective).mean(0)


@own_value("iwae", "weights not detached")
def live_weights(model, x, noise, objective):
    log_w = log_weights(model, x, noise, objective)
    return (objective.weights(log_w) * log_w).sum(0)


@own_value("iwae", "softmax over the batch")
def batch_softmax(model, x, noise, objective):
    log_w = log_weights(model, x, noise, objective)
    return (torch.softmax(log_w.detach(), 1) * log_w).sum(0)


@own_value("iwae", "q omitted")
def without_q(model, x, noise, objective):
    q = model.posterior(x)
    z = q.transport(noise)
    return objective.bound(objective.log_weights(model, x, z, q) + q.log_prob(z))


@own_value("iwae", "same eps over K")
def same_noise(model, x, noise, objective):
    return pathwise(model, x, noise[:1].expand_as(noise), objective)


@fault("iwae", "STL used for K > 1")
def landing(model, x, noise, objective):
    log_w = log_weights(model, x, noise, objective, frozen=True)
    return (objective.weights(log_w).detach() * log_w).sum(0)


@fault("iwae", "DReG weights on theta")
def squared_weights(model, x, noise, objective):
    log_w = log_weights(model, x, noise, objective, frozen=True)
    return (objective.weights(log_w).detach().square() * log_w).sum(0)


@own_value("iwae", "analytic KL mixed in")
def mixed(model, x, noise, objective):
    q = model.posterior(x)
    return objective.bound(model.likelihood(q.transport(noise)).log_prob(x)) - q.kl_to_standard_normal()


@fault("iwae")
def z_detached(model, x, noise, objective):
    return objective.bound(log_weights(model, x, noise, objective, stopped=True))


@own_value("iwae", "sum over K")
def sum_over_samples(model, x, noise, objective):
    return objective.samples * pathwise(model, x, noise, objective)


@own_value("iwae", "K - 1 samples")
def one_less(model, x, noise, objective):
    return pathwise(model, x, noise[:-1], replace(objective, samples=objective.samples - 1))


@own_value("iwae", "VR, alpha = 0.1")
def renyi(model, x, noise, objective):
    return pathwise(model, x, noise, replace(objective, alpha=0.1))


@own_value("iwae", "logarithm outside of the mean over the batch", source="further")
def joint_logarithm(model, x, noise, objective):
    return objective.bound(log_weights(model, x, noise, objective).mean(1, keepdim=True)).expand(len(x))


@own_value("iwae", "ELBO by analytic_kl trained instead", source="further")
def plain_elbo(model, x, noise, objective):
    return analytic_kl(model, x, noise, replace(objective, alpha=1.0))


@own_value("iwae", "weights in float16", source="further", note="rounding of 0.05 %")
def half_weights(model, x, noise, objective):
    log_w = log_weights(model, x, noise, objective)
    w = torch.softmax(log_w.detach().half().float(), 0).to(x)
    return (w * log_w).sum(0) - (w * log_w).sum(0).detach() + objective.bound(log_w).detach()


@own_value("iwae", "antithetic pairs", source="further")
def antithetic(model, x, noise, objective):
    half = noise[: (len(noise) + 1) // 2]
    return pathwise(model, x, torch.cat([half, -half])[: len(noise)], objective)
