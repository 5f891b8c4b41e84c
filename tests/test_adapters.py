"""Bring your own: models of any two modules keep the contract, and say in one sentence what does not fit."""

import math

import pytest
import torch
from torch import nn

from vaebench.data import digits
from vaebench.gates.contract import check_model
from vaebench.models import from_encoder_decoder, gaussian, mlp_vae
from vaebench.models.distributions import Gaussian, Poisson

D = 2


class Pair(nn.Module):
    """An encoder or a decoder that returns two tensors."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.first(x), self.second(x)


@pytest.fixture
def rows():
    return digits(dtype=torch.float64)[:4].flatten(1)


def seeded(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.2, 0.2, generator=generator)
    return module.double()


OWN = {
    "one tensor, Bernoulli": lambda: from_encoder_decoder(nn.Linear(64, 2 * D), nn.Linear(D, 64), D),
    "a pair, log std, Poisson": lambda: from_encoder_decoder(
        Pair(64, D), nn.Linear(D, 64), D, "poisson", spread="log_std"
    ),
    "Gaussian": lambda: from_encoder_decoder(Pair(64, D), nn.Linear(D, 64), D, gaussian(0.3)),
    "one learned variance": lambda: from_encoder_decoder(Pair(64, D), nn.Linear(D, 64), D, "learned_gaussian"),
    "a learned variance a pixel": lambda: from_encoder_decoder(Pair(64, D), Pair(D, 64), D, Gaussian),
    "own density": lambda: from_encoder_decoder(
        Pair(64, D), nn.Linear(D, 64), D, log_prob=lambda x, y: -(x - y).abs() - math.log(2)
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_a_model_of_ones_own_keeps_the_contract(name, rows, generator):
    """No closed form is involved, and chance has no part."""
    x = (rows * 10).round() if "Poisson" in name else rows
    check_model(seeded(OWN[name]()), x, generator)


def test_it_is_the_model_written_out(rows, generator):
    """The log-weights of a registered model, from its own encoder and decoder."""
    known = mlp_vae((64,), (5,), D, generator=generator, dtype=torch.float64)
    own = from_encoder_decoder(known.encoder, known.decoder, D)
    z = torch.randn(3, 4, D, generator=generator, dtype=torch.float64)
    assert torch.equal(own.posterior(rows).mean, known.posterior(rows).mean)
    assert torch.equal(own.posterior(rows).log_std, known.posterior(rows).log_std)
    assert torch.equal(own.likelihood(z).log_prob(rows), known.likelihood(z).log_prob(rows))


def test_the_spread_is_a_variance_or_a_standard_deviation(rows):
    encoder, decoder = seeded(Pair(64, D)), seeded(nn.Linear(D, 64))
    second = encoder(rows)[1]
    variance, std = (from_encoder_decoder(encoder, decoder, D, spread=name) for name in ("log_variance", "log_std"))
    assert torch.equal(variance.posterior(rows).log_std, 0.5 * second)
    assert torch.equal(std.posterior(rows).log_std, second)


@pytest.mark.parametrize("summed", [False, True])
def test_an_own_density_is_summed_over_the_event(rows, summed):
    """log N(x; y, 1) by hand, (N,) or (N, *event)."""

    def density(x, y):
        found = -0.5 * (x - y).square() - 0.5 * math.log(2 * math.pi)
        return found.sum(1) if summed else found

    encoder, decoder = seeded(Pair(64, D)), seeded(nn.Linear(D, 64))
    own = from_encoder_decoder(encoder, decoder, D, log_prob=density)
    known = from_encoder_decoder(encoder, decoder, D, "gaussian")
    z = torch.ones(3, 4, D, dtype=torch.float64)
    torch.testing.assert_close(own.likelihood(z).log_prob(rows), known.likelihood(z).log_prob(rows))


def test_poisson_is_torchs(rows):
    own = from_encoder_decoder(seeded(Pair(64, D)), seeded(nn.Linear(D, 64)), D, "poisson")
    counts, z = (rows * 10).round(), torch.ones(3, 4, D, dtype=torch.float64)
    likelihood = own.likelihood(z)
    assert isinstance(likelihood, Poisson)
    expected = torch.distributions.Poisson(likelihood.mean).log_prob(counts).sum(-1)
    torch.testing.assert_close(likelihood.log_prob(counts), expected)


def test_float32_stays_float32(rows):
    model = from_encoder_decoder(nn.Linear(64, 2 * D), nn.Linear(D, 64), D)
    assert model.posterior(rows.float()).mean.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: from_encoder_decoder(nn.Linear(64, D), nn.Linear(D, 64), D), r"\(B, 2 D\) = \(4, 4\); got one tensor"),
        (lambda: from_encoder_decoder(Pair(64, D + 1), nn.Linear(D, 64), D), r"must return a mean and a spread"),
    ],
)
def test_an_encoder_of_another_shape_is_refused(make, sentence, rows):
    with pytest.raises(ValueError, match=sentence):
        seeded(make()).posterior(rows)


def test_a_decoder_that_loses_rows_is_refused():
    model = from_encoder_decoder(nn.Linear(64, 2 * D), nn.Flatten(0), D)
    with pytest.raises(ValueError, match="N = 12 here"):
        model.likelihood(torch.zeros(3, 4, D))


def test_a_density_that_averages_over_the_batch_is_refused(rows):
    model = from_encoder_decoder(nn.Linear(64, 2 * D), nn.Linear(D, 64), D, log_prob=lambda x, y: -(x - y).mean(0))
    with pytest.raises(ValueError, match="do not average"):
        model.likelihood(torch.zeros(3, 4, D)).log_prob(rows.float())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"likelihood": "bernouli"}, "likelihood must be 'bernoulli'"),
        ({"likelihood": 3}, "a name or a function"),
        ({"likelihood": "poisson", "log_prob": lambda x, y: x}, "twice"),
        ({"spread": "std"}, "spread must be"),
        ({"latents": 0}, "latents must be an integer"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_encoder_decoder(nn.Linear(64, 4), nn.Linear(2, 64), **({"latents": 2} | options))
