"""The log-likelihood by many samples: exact on the linear VAE, and the same however it streams."""

import math

import pytest
import torch

from tests import cases
from vaebench.data import linear_gaussian
from vaebench.gradients.estimators import pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.measures import likelihood
from vaebench.measures.likelihood import log_likelihood
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
