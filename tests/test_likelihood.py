"""The log-likelihood by many samples: exact on the linear VAE, and the same however it streams."""

import math

import pytest
import torch

from tests import cases
from vaebench.data import linear_gaussian
from vaebench.gradients.estimators import exact, pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.measures import likelihood
from vaebench.measures.likelihood import bound_draws, log_likelihood
from vaebench.models import linear_vae


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def near_its_posterior(generator: torch.Generator):
    """A linear VAE with one latent whose encoder is the posterior, but for a tenth: light weights."""
    model = linear_vae(latents=1, generator=generator, dtype=torch.float64)
    x = linear_gaussian(n=16, latents=1, generator=generator, dtype=torch.float64)
    precision = float((model.W.mT @ model.W).detach() + model.noise_variance)
    with torch.no_grad():
        model.V.copy_(1.1 * model.W.mT / precision)
        model.eta.fill_(math.log(model.noise_variance / precision))
    return model, x


def test_the_linear_vae_has_it_in_closed_form(generator):
    model, x = near_its_posterior(generator)
    found = log_likelihood(Loss(model, pathwise, Objective()), x, 5000, seeded())
    assert 0 < found.error < 0.01
    assert abs(found.value - float(model.log_likelihood(x).detach().mean())) < 5 * found.error


def test_the_error_is_that_of_repetitions(generator):
    model, x = near_its_posterior(generator)
    found = [log_likelihood(Loss(model, pathwise, Objective()), x, 400, seeded(s)) for s in range(200)]
    values = torch.tensor([one.value for one in found])
    errors = torch.tensor([one.error for one in found])
    assert float(values.std() / errors.square().mean().sqrt()) == pytest.approx(1, abs=0.25)  # 5 standard errors


@pytest.mark.parametrize("name", ["mlp_gaussian", "mlp_bernoulli"])
def test_chunks_change_nothing_but_the_noise(name, generator, monkeypatch):
    model, x = cases.MODELS[name](generator)
    loss = Loss(model, pathwise, Objective())
    whole = log_likelihood(loss, x, 60, seeded())
    monkeypatch.setattr(likelihood, "DECODED", 7 * len(x))
    noise = torch.randn(60, len(x), model.latents, generator=seeded(), dtype=x.dtype)
    parts = iter([noise[start : start + 7] for start in range(0, 60, 7)])
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(parts))
    streamed = log_likelihood(loss, x, 60, seeded())
    assert streamed.value == pytest.approx(whole.value, rel=1e-12)
    assert streamed.error == pytest.approx(whole.error, rel=1e-9)


def test_other_parameters_are_used(generator):
    model, x = cases.linear(generator)
    loss = Loss(model, pathwise, Objective())
    moved = {name: parameter.detach() + 1 for name, parameter in loss.named_parameters()}
    assert log_likelihood(loss, x, 50, seeded(), moved) != log_likelihood(loss, x, 50, seeded())


def test_equal_weights_have_no_error(generator):
    model, x = cases.linear(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = log_likelihood(Loss(model, pathwise, Objective()), x, 3, seeded())
    assert found.error < 1e-7
    assert math.isfinite(found.value)


def test_one_sample_has_no_error_to_tell(generator):
    model, x = cases.linear(generator)
    with pytest.raises(ValueError, match="at least 2"):
        log_likelihood(Loss(model, pathwise, Objective()), x, 1, seeded())


def test_where_all_weights_are_equal_two_samples_are_enough():
    """Posterior and prior agree and the decoder sees no latent: log w is log p(x), whatever is drawn."""
    model = linear_vae(generator=seeded(), dtype=torch.float64)
    x = linear_gaussian(n=5, generator=seeded(2), dtype=torch.float64)
    with torch.no_grad():
        for parameter in (model.W, model.V, model.eta):
            parameter.zero_()
    found = log_likelihood(Loss(model, pathwise, Objective()), x, 2, seeded())
    assert found.value == pytest.approx(float(model.log_likelihood(x).detach().mean()), rel=1e-12)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_the_error_of_two_samples_by_hand():
    """Of weights u and v of one row the variance of the logarithm is (u^2 + v^2) / (u + v)^2 - 1/2."""
    model, x = near_its_posterior(seeded(3))
    loss, one = Loss(model, pathwise, Objective()), x[:1]
    noise = torch.randn(2, 1, 1, generator=seeded(), dtype=torch.float64)
    q = model.posterior(one)
    weights = Objective().log_weights(model, one, q.transport(noise), q).detach().exp().flatten()
    found = log_likelihood(loss, one, 2, seeded())
    share = weights / weights.sum()
    assert found.value == pytest.approx(math.log(float(weights.mean())))
    assert found.error == pytest.approx(math.sqrt(float(share.square().sum()) - 0.5), rel=1e-6)


def test_the_bound_weighs_rows_and_not_their_blocks():
    """Five rows in blocks of two: the last block has one row and counts as one."""
    model, x = near_its_posterior(seeded(3))
    loss = Loss(model, exact, Objective())
    whole, parts = (bound_draws(loss, x[:5], 2, seeded(), batch_size=size) for size in (5, 2))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
