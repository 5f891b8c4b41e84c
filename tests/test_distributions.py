"""Distributions against torch.distributions."""

import math

import pytest
import torch
from torch import Tensor, distributions
from torch.func import grad, vmap

from tests.cases import NEEDS_COMPILER
from vaebench.models.distributions import Bernoulli, Gaussian, Poisson, standard_normal_log_prob, sum_event
from vaebench.support.internals import compile_flat

SAMPLES, ROWS, EVENT = 3, 4, (2, 5)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("scale", [(), (ROWS, *EVENT), (SAMPLES, ROWS, *EVENT)], ids=str)
def test_gaussian_log_prob(generator, scale):
    mean, log_std = normal(generator, SAMPLES, ROWS, *EVENT), normal(generator, *scale)
    x = normal(generator, ROWS, *EVENT)
    expected = distributions.Normal(mean, log_std.exp()).log_prob(x).sum((-1, -2))
    close(Gaussian(mean, log_std).log_prob(x), expected)


def test_gaussian_log_prob_of_samples_from_parameters_without_a_sample_axis(generator):
    mean, log_std, z = normal(generator, ROWS, 2), normal(generator, ROWS, 2), normal(generator, SAMPLES, ROWS, 2)
    close(Gaussian(mean, log_std).log_prob(z), distributions.Normal(mean, log_std.exp()).log_prob(z).sum(-1))


def test_gaussian_log_prob_of_a_tiny_standard_deviation_is_finite():
    q = Gaussian(torch.zeros(1, 1, 1), torch.tensor(-300.0, dtype=torch.float64))
    assert float(q.log_prob(torch.zeros(1, 1, dtype=torch.float64))) == pytest.approx(300 - 0.5 * math.log(2 * math.pi))


def test_transport_is_mean_plus_scaled_noise(generator):
    mean, log_std, noise = normal(generator, ROWS, 2), normal(generator, ROWS, 2), normal(generator, SAMPLES, ROWS, 2)
    close(Gaussian(mean, log_std).transport(noise), mean + log_std.exp() * noise)


def test_transport_is_differentiable_in_both_parameters(generator):
    mean, log_std = (normal(generator, ROWS, 2).requires_grad_() for _ in range(2))
    noise = normal(generator, SAMPLES, ROWS, 2)
    to_mean, to_log_std = torch.autograd.grad(Gaussian(mean, log_std).transport(noise).sum(), (mean, log_std))
    close(to_mean, torch.full_like(mean, SAMPLES))
    close(to_log_std, log_std.detach().exp() * noise.sum(0))


def test_detach_keeps_the_values_and_cuts_the_gradient(generator):
    q = Gaussian(normal(generator, ROWS, 2).requires_grad_(), normal(generator, ROWS, 2).requires_grad_())
    frozen = q.detach()
    assert torch.equal(frozen.mean, q.mean) and torch.equal(frozen.log_std, q.log_std)
    assert not (frozen.mean.requires_grad or frozen.log_std.requires_grad)


def test_kl_to_the_prior(generator):
    mean, log_std = normal(generator, ROWS, 2), normal(generator, ROWS, 2)
    prior = distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = distributions.kl_divergence(distributions.Normal(mean, log_std.exp()), prior).sum(1)
    close(Gaussian(mean, log_std).kl_to_standard_normal(), expected)


def test_kl_near_the_prior_does_not_cancel():
    off = 1e-7
    q = Gaussian(torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), off, dtype=torch.float64))
    assert float(q.kl_to_standard_normal()) == pytest.approx(off**2 * (1 + 2 * off / 3), rel=1e-6, abs=0)


def test_prior_log_prob(generator):
    z = normal(generator, SAMPLES, ROWS, 2)
    close(standard_normal_log_prob(z), distributions.Normal(torch.zeros_like(z), 1).log_prob(z).sum(-1))


def test_bernoulli_log_prob_of_bits(generator):
    logits = 3 * normal(generator, SAMPLES, ROWS, *EVENT)
    x = (normal(generator, ROWS, *EVENT) > 0).double()
    expected = distributions.Bernoulli(logits=logits).log_prob(x.expand_as(logits)).sum((-1, -2))
    close(Bernoulli(logits).log_prob(x), expected)


def test_bernoulli_log_prob_of_grey_values_is_the_mixture_of_those_of_bits(generator):
    logits, x = normal(generator, SAMPLES, ROWS, *EVENT), normal(generator, ROWS, *EVENT).sigmoid()
    p = logits.sigmoid()
    close(Bernoulli(logits).log_prob(x), (x * p.log() + (1 - x) * (1 - p).log()).sum((-1, -2)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("logit", [-1024.0, -128.0, 128.0, 1024.0])
def test_bernoulli_is_not_clamped_at_100_nats(logit, dtype):
    wrong = torch.full((1, 1), float(logit < 0), dtype=dtype)
    logits = torch.full((1, 1, 1), logit, dtype=dtype)
    assert float(Bernoulli(logits).log_prob(wrong)) == -abs(logit)
    assert float(Bernoulli(logits).log_prob(1 - wrong)) == pytest.approx(0, abs=1e-50)


def test_poisson_log_prob(generator):
    log_rate = normal(generator, SAMPLES, ROWS, 7)
    x = torch.poisson(normal(generator, ROWS, 7).exp(), generator=generator)
    close(Poisson(log_rate).log_prob(x), distributions.Poisson(log_rate.exp()).log_prob(x).sum(-1))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Gaussian(torch.ones(1, 2, 3), torch.tensor(0.3)), distributions.Normal(torch.ones(1, 2, 3), 1.3)),
        (Bernoulli(torch.ones(1, 2, 3)), distributions.Bernoulli(logits=torch.ones(1, 2, 3))),
        (Poisson(torch.ones(1, 2, 3)), distributions.Poisson(torch.ones(1, 2, 3).exp())),
    ],
    ids=["gaussian", "bernoulli", "poisson"],
)
def test_means(ours, theirs):
    torch.testing.assert_close(ours.mean, theirs.mean)


@pytest.mark.parametrize("event", [(5,), (2, 3), (3, 4, 4)], ids=str)
def test_sum_event_sums_everything_behind_samples_and_rows(event):
    total = sum_event(torch.ones(SAMPLES, ROWS, *event))
    assert torch.equal(total, torch.full((SAMPLES, ROWS), float(math.prod(event))))


@NEEDS_COMPILER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_compiled_bernoullis_are_the_eager_ones_at_any_logit(dtype):
    generator, eps = torch.Generator().manual_seed(0), torch.finfo(dtype).eps
    logits = torch.cat([10.0 ** torch.arange(-30, 4), torch.zeros(1)]).to(dtype)
    logits = torch.cat([logits, -logits])
    x = torch.rand(len(logits), generator=generator, dtype=dtype)

    def one(logit, value):
        return Bernoulli(logit.view(1, 1, 1)).log_prob(value.view(1, 1)).sum()

    slope = grad(one, argnums=(0, 1))
    everything = lambda logits, x: (vmap(one)(logits, x), *vmap(slope)(logits, x), vmap(grad(grad(one)))(logits, x))
    found = compile_flat(lambda *tensors: list(everything(*tensors)), [logits, x])(logits, x)
    for actual, expected in zip(found, everything(logits.double(), x.double()), strict=True):
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, rtol=8 * eps, atol=8 * eps)


@NEEDS_COMPILER
def test_compiled_bernoullis_keep_a_tiny_probability():
    logits, x = torch.full((1, 1, 1), -60.0), torch.zeros(1, 1)
    (found,) = compile_flat(lambda *tensors: [Bernoulli(tensors[0]).log_prob(tensors[1])], [logits, x])(logits, x)
    assert float(found) == pytest.approx(-math.exp(-60), rel=1e-5)
