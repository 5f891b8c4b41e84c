"""Every estimator against hand-derived gradients, the exact gradient, and what must be refused."""

import numpy as np
import pytest
import torch

from tests import oracles
from vaebench.data import digits, linear_gaussian
from vaebench.gates.contract import check_estimator, gradient
from vaebench.gradients.estimators import ESTIMATORS, draw_noise, pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import count
from vaebench.models import linear_vae, mlp_vae

OBJECTIVES = [Objective(k, a, b) for k in (1, 2, 7) for a in (0, 0.5, 1) for b in (0.3, 1, 4)]
ELBO_ONLY = {"analytic_kl", "sticking_the_landing", "exact"}


def allowed(name: str, objective: Objective) -> bool:
    return (objective.alpha == 1 or name not in ELBO_ONLY) and (objective.samples > 1 or name != "leave_one_out")


PAIRS = [pytest.param(n, o, id=f"{n}-{o.name}") for n in ESTIMATORS for o in OBJECTIVES if allowed(n, o)]


@pytest.fixture
def bed():
    generator = torch.Generator().manual_seed(1)
    x = linear_gaussian(n=5, generator=generator, dtype=torch.float64)
    model = linear_vae(generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.eta.uniform_(-1.5, 0.5, generator=generator)
    return model, x, generator


@pytest.mark.parametrize(("name", "objective"), PAIRS)
def test_gradient_at_fixed_noise_is_the_hand_derived_one(bed, name, objective):
    model, x, generator = bed
    noise = draw_noise(model, x, objective, generator)
    W, V, eta = (p.detach().numpy() for p in (model.W, model.V, model.eta))
    if name == "exact":
        expected = oracles.exact_loss_gradient(W, V, eta, model.noise_variance, objective.beta, x.numpy())
    else:
        expected = oracles.loss_gradient(
            name, W, V, eta, model.noise_variance, objective.alpha, objective.beta, x.numpy(), noise.numpy()
        )
    actual = gradient(Loss(model, ESTIMATORS[name], objective), x, noise)
    for key, value in expected.items():
        np.testing.assert_allclose(actual[f"model.{key}"].numpy(), value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "objective"), PAIRS)
def test_contract(name, objective):
    """Hotelling against the exact or the pathwise gradient; 162 checks, false alarms below 1e-8 each."""
    check_estimator(ESTIMATORS[name], objective, torch.Generator().manual_seed(2))


def sticking_the_landing_anywhere(model, x, noise, objective):
    q = model.posterior(x)
    return objective.bound(objective.log_weights(model, x, q.transport(noise), q.detach()))


def self_included_baseline(model, x, noise, objective):
    q = model.posterior(x)
    z = q.transport(noise).detach()
    log_w = objective.log_weights(model, x, z, q)
    centred = (log_w - log_w.mean(0)).detach() / len(log_w)
    return objective.bound(log_w) + (centred * q.log_prob(z)).sum(0)


def shrunk(model, x, noise, objective):
    return 0.9 * pathwise(model, x, noise, objective)


def decoder_detached(model, x, noise, objective):
    q = model.posterior(x)
    return objective.bound(objective.log_weights(model, x, q.transport(noise).detach(), q))


def shares_its_batch(model, x, noise, objective):
    return pathwise(model, x, noise, objective).mean(0, keepdim=True)


def changes_its_noise(model, x, noise, objective):
    return pathwise(model, x, noise.neg_(), objective)


def hooked(model, x, noise, objective):
    q = model.posterior(x)
    z = q.transport(noise)
    if z.requires_grad:
        z.register_hook(lambda grad: 2 * grad)
    return objective.bound(objective.log_weights(model, x, z, q))


def draws_its_own(model, x, noise, objective):
    return pathwise(model, x, torch.randn_like(noise), objective)


@pytest.mark.parametrize(
    ("faulty", "objective", "message"),
    [
        (sticking_the_landing_anywhere, Objective(5, 0), "biased for IWAE"),
        (sticking_the_landing_anywhere, Objective(5, 0.5), "biased for VR-IWAE"),
        (self_included_baseline, Objective(5), "biased for ELBO"),
        (shrunk, Objective(), "biased"),
        (decoder_detached, Objective(), "biased"),
        (shares_its_batch, Objective(), r"one surrogate per example, shape \(B,\) = \(2,\) .*got \(1,\)"),
        (changes_its_noise, Objective(), "changes what it is given in place"),
        (hooked, Objective(), "through vmap"),
        (draws_its_own, Objective(), "'draws_its_own' draws or seeds random numbers"),
    ],
)
def test_contract_fails_on_planted_faults(faulty, objective, message):
    with pytest.raises(AssertionError, match=message):
        check_estimator(faulty, objective, torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("name", "objective", "advice"),
    [
        ("analytic_kl", Objective(5, 0), "use pathwise or doubly_reparameterized"),
        ("analytic_kl", Objective(5, 0.5), "use pathwise or doubly_reparameterized"),
        ("sticking_the_landing", Objective(5, 0), "use pathwise or doubly_reparameterized"),
        ("exact", Objective(5, 0), "use pathwise or doubly_reparameterized"),
        ("leave_one_out", Objective(1), "use score_function or pathwise"),
    ],
)
def test_biased_or_undefined_combinations_are_refused(bed, name, objective, advice):
    model, x, generator = bed
    with pytest.raises(ValueError, match=advice):
        ESTIMATORS[name](model, x, draw_noise(model, x, objective, generator), objective)


def test_exact_is_refused_without_a_closed_form(generator):
    model, x = mlp_vae((8, 8), (5,), 2, generator=generator), digits()[:2]
    with pytest.raises(ValueError, match="VAE has none; use analytic_kl"):
        ESTIMATORS["exact"](model, x, torch.zeros(1, 2, 2), Objective())


@pytest.mark.parametrize("shape", [(2, 5, 2), (1, 4, 2), (1, 5, 3), (5, 2)])
def test_noise_of_the_wrong_shape_is_refused(bed, shape):
    model, x, _ = bed
    with pytest.raises(ValueError, match=r"noise must have shape \(K, B, D\) = \(1, 5, 2\)"):
        pathwise(model, x, torch.zeros(shape, dtype=x.dtype), Objective())


def test_doubly_reparameterized_needs_no_graph(bed):
    model, x, generator = bed
    objective = Objective(3, 0)
    with torch.no_grad():
        surrogate = ESTIMATORS["doubly_reparameterized"](
            model, x, draw_noise(model, x, objective, generator), objective
        )
    assert surrogate.isfinite().all()


@pytest.mark.parametrize("name", ["pathwise", "doubly_reparameterized", "score_function", "leave_one_out"])
def test_encoder_and_decoder_run_once(bed, name):
    model, x, generator = bed
    calls = {"posterior": 0, "likelihood": 0}

    class Counting:
        latents = model.latents

        def posterior(self, x):
            calls["posterior"] += 1
            return model.posterior(x)

        def likelihood(self, z):
            calls["likelihood"] += 1
            return model.likelihood(z)

    objective = Objective(4, 0)
    ESTIMATORS[name](Counting(), x, draw_noise(model, x, objective, generator), objective)
    assert calls == {"posterior": 1, "likelihood": 1}


def test_doubly_reparameterized_costs_no_more_than_pathwise(bed):
    model, x, generator = bed
    objective = Objective(4, 0)
    noise = draw_noise(model, x, objective, generator)
    costs = [
        count(lambda name=name: gradient(Loss(model, ESTIMATORS[name], objective), x, noise))
        for name in ("doubly_reparameterized", "pathwise")
    ]
    assert costs[0].flops <= costs[1].flops
    assert costs[0].ops <= costs[1].ops


def test_antithetic_estimator_in_three_lines():
    def antithetic(model, x, noise, objective):
        return (pathwise(model, x, noise, objective) + pathwise(model, x, -noise, objective)) / 2

    check_estimator(antithetic, Objective(2), torch.Generator().manual_seed(4))
