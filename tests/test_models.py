"""Models: the contract, the paper's shapes, densities against torch.distributions, and planted faults."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor, distributions, nn

from tests.cases import ABSENT_DEVICE, DTYPE, MODELS, linear, mlp_bernoulli, mlp_gaussian
from vaebench.data import diabetes, digits
from vaebench.gates.contract import check_model
from vaebench.models import MODELS as REGISTRY
from vaebench.models import (
    VAE,
    GaussianRegression,
    PoissonRegression,
    check_input,
    conv_vae,
    deep_gaussian_vae,
    gaussian,
    largest_parameter,
    linear_vae,
    mean_field,
    mlp_vae,
)
from vaebench.models.activations import relu, soft_clip
from vaebench.models.distributions import Gaussian, standard_normal_log_prob

DRAWN = {
    "linear_vae": linear_vae,
    "mlp_vae": lambda **options: mlp_vae((8, 8), (12,), 3, **options),
    "conv_vae": conv_vae,
    "deep_gaussian_vae": lambda **options: deep_gaussian_vae((8, 8), **options),
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol)


# The contract


@pytest.mark.parametrize("name", MODELS)
def test_every_model_keeps_the_contract(name, generator):
    """The Monte Carlo check of a closed form (at most 8 rows, 6.5 standard errors) errs with probability 1e-9."""
    check_model(*MODELS[name](generator), generator)


def test_every_registered_model_is_tested_here():
    assert set(REGISTRY) == {*DRAWN, "mean_field"}


# The paper's nets


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def conv(inputs: int, outputs: int) -> int:
    return 16 * inputs * outputs + outputs


@pytest.mark.parametrize(
    ("size", "channels", "width"), [(32, (3, 32, 64, 128), 256), (64, (3, 64, 128, 256, 512), 1024)]
)
def test_the_convolutional_nets_have_the_papers_number_of_parameters(size, channels, width):
    flat = channels[-1] * 4 * 4
    encoder = sum(conv(a, b) for a, b in pairwise(channels)) + dense(flat, width) + dense(width, 2 * 100)
    decoder = dense(100, width) + dense(width, flat) + sum(conv(a, b) for a, b in pairwise(channels[::-1]))
    model = conv_vae(size, generator=seeded())
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.decoder.parameters()) == decoder


def test_the_default_mlp_is_784_200_200_50():
    model = mlp_vae((28, 28), generator=seeded())
    encoder = [layer.weight.shape for layer in model.encoder if isinstance(layer, nn.Linear)]
    decoder = [layer.weight.shape for layer in model.decoder if isinstance(layer, nn.Linear)]
    assert encoder == [(200, 784), (200, 200), (100, 200)]
    assert decoder == [(200, 50), (200, 200), (784, 200)]
    assert sum(isinstance(layer, nn.Tanh) for layer in model.modules()) >= 1


@pytest.mark.parametrize("size", [32, 64])
def test_the_convolutional_decoder_returns_to_the_image(size):
    model = conv_vae(size, generator=seeded())
    assert model.likelihood(torch.zeros(2, 1, 100)).mean.shape == (2, 1, 3, size, size)


@pytest.mark.parametrize("kind", ["conv", "mlp"])
def test_an_activation_follows_every_layer_but_the_last(kind):
    marker = relu()._replace(hidden=nn.Softsign())
    model = conv_vae(32, activations=marker) if kind == "conv" else mlp_vae((4,), (5, 6), 2, marker)
    for net in (model.encoder, model.decoder):
        leaves = [m for _, m in net.named_modules(remove_duplicate=False) if not list(m.children())]
        active = [isinstance(m, nn.Softsign) for m in leaves if not isinstance(m, (nn.Flatten, nn.Unflatten))]
        assert active == [bool(i % 2) for i in range(len(active))] and not active[-1]


def test_heads_are_clipped_to_the_papers_ranges(generator):
    model = mlp_vae((4,), (5,), 2, soft_clip(1.0), generator=generator, dtype=DTYPE)
    with torch.no_grad():
        model.encoder[-1].bias.copy_(torch.tensor([1e6, -1e6, 1e6, -1e6]))
    q = model.posterior(torch.zeros(1, 4, dtype=DTYPE))
    close(q.mean, torch.tensor([[50.0, -50.0]], dtype=DTYPE))
    close(2 * q.log_std, torch.tensor([[20.0, -20.0]], dtype=DTYPE))


# Densities


@pytest.mark.parametrize(
    ("case", "oracle"),
    [
        (mlp_bernoulli, lambda output: distributions.Bernoulli(logits=output)),
        (mlp_gaussian, lambda output: distributions.Normal(output, 0.3**0.5)),
    ],
    ids=["bernoulli", "gaussian"],
)
def test_log_density_of_a_net(case, oracle, generator):
    model, x = case(generator)
    x = x.round()
    z = torch.randn(3, len(x), model.latents, generator=generator, dtype=DTYPE)
    outputs = torch.stack([model.decoder(rows) for rows in z])
    log_joint = oracle(outputs).log_prob(x).sum((-1, -2)) + distributions.Normal(0, 1).log_prob(z).sum(-1)
    close(model.likelihood(z).log_prob(x) + standard_normal_log_prob(z), log_joint)


def test_posterior_of_a_net_is_read_as_means_then_log_variances(generator):
    model, x = mlp_gaussian(generator)
    z = torch.randn(3, len(x), 3, generator=generator, dtype=DTYPE)
    output = model.encoder(x)
    expected = distributions.Normal(output[:, :3], output[:, 3:].exp().sqrt()).log_prob(z).sum(-1)
    close(model.posterior(x).log_prob(z), expected)


def test_likelihood_of_the_linear_model(generator):
    model, x = linear(generator)
    z = torch.randn(3, len(x), 2, generator=generator, dtype=DTYPE)
    expected = distributions.Normal(torch.einsum("fd,kbd->kbf", model.W, z), 0.5**0.5).log_prob(x).sum(-1)
    close(model.likelihood(z).log_prob(x), expected)


def test_posterior_of_the_linear_model(generator):
    model, x = linear(generator)
    with torch.no_grad():
        model.eta.copy_(torch.tensor([0.4, -0.6]))
    q = model.posterior(x)
    close(q.mean, torch.einsum("df,bf->bd", model.V, x))
    close((2 * q.log_std).exp(), model.eta.exp().expand(len(x), 2))


def test_marginal_of_the_linear_model(generator):
    model, x = linear(generator)
    low_rank = distributions.LowRankMultivariateNormal(
        torch.zeros(6, dtype=DTYPE), model.W, torch.full((6,), 0.5).double()
    )
    close(model.log_likelihood(x), low_rank.log_prob(x))


def test_marginal_of_the_linear_model_is_the_integral_over_the_latent(generator):
    """One latent, by the trapezoidal rule, which converges geometrically here."""
    model = linear_vae(latents=1, generator=generator, dtype=DTYPE)
    x = torch.randn(4, 6, generator=generator, dtype=DTYPE)
    z = torch.linspace(-12, 12, 2001, dtype=DTYPE).view(-1, 1, 1).expand(-1, 4, 1)
    log_joint = model.likelihood(z).log_prob(x) + distributions.Normal(0, 1).log_prob(z).sum(-1)
    close(model.log_likelihood(x), torch.logsumexp(log_joint, 0) + math.log(24 / 2000), rtol=1e-10)


def test_expected_log_likelihood_of_the_linear_model_for_any_gaussian(generator):
    """Gauss-Hermite quadrature with two nodes a coordinate is exact for a quadratic."""
    model, x = linear(generator)
    q = Gaussian(*(torch.randn(len(x), 2, generator=generator, dtype=DTYPE) for _ in range(2)))
    nodes = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)], dtype=DTYPE)
    noise = nodes.unsqueeze(1).expand(-1, len(x), -1)
    close(model.expected_log_likelihood(x, q), model.likelihood(q.transport(noise)).log_prob(x).mean(0))


@pytest.mark.parametrize("variance", [0.1, 2.0])
def test_expected_log_likelihood_of_gaussian_regression(variance, generator):
    features = torch.randn(5, 2, generator=generator, dtype=DTYPE)
    y = torch.randn(1, 5, generator=generator, dtype=DTYPE)
    target = GaussianRegression(features, variance)
    q = Gaussian(*(torch.randn(1, 2, generator=generator, dtype=DTYPE) for _ in range(2)))
    nodes = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)], dtype=DTYPE).unsqueeze(1)
    draws = distributions.Normal(q.transport(nodes) @ features.T, variance**0.5).log_prob(y).sum(-1)
    close(target.expected_log_likelihood(y, q), draws.mean(0))


def test_expected_log_likelihood_of_poisson_regression(generator):
    """One coefficient, by quadrature."""
    features = 0.5 * torch.randn(5, 1, generator=generator, dtype=DTYPE)
    y = torch.tensor([[0.0, 1, 2, 3, 4]], dtype=DTYPE)
    q = Gaussian(torch.tensor([[0.3]], dtype=DTYPE), torch.tensor([[-0.4]], dtype=DTYPE))
    noise = torch.linspace(-12, 12, 2001, dtype=DTYPE).view(-1, 1, 1)
    density = distributions.Normal(0, 1).log_prob(noise).exp().squeeze(-1) * 24 / 2000
    values = distributions.Poisson((q.transport(noise) @ features.T).exp()).log_prob(y).sum(-1)
    close(PoissonRegression(features).expected_log_likelihood(y, q), (density * values).sum(0), rtol=1e-10)


def test_mean_field_starts_at_the_prior_and_ignores_x():
    model = mean_field(PoissonRegression(diabetes(dtype=DTYPE)[:, :-1]))
    q = model.posterior(torch.zeros(3, 442, dtype=DTYPE))
    assert torch.equal(q.mean, torch.zeros(3, 10, dtype=DTYPE)) and torch.equal(q.log_std, torch.zeros_like(q.mean))


# The paper's assumptions


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e9])
def test_deep_gaussian_vae_is_bounded_whatever_its_parameters(scale, generator):
    model = deep_gaussian_vae((8, 8), sharpness=2.0, output_range=(-3.0, 4.0), generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    x, z = torch.randn(50, 8, 8, generator=generator), 10 * torch.randn(2, 50, 2, generator=generator)
    q, p = model.posterior(scale * x), model.likelihood(z)
    assert (q.mean.abs() <= 50).all()
    assert ((2 * q.log_std).abs() <= 20).all()
    assert ((p.mean >= -3) & (p.mean <= 4)).all()


def test_deep_gaussian_vae_has_no_activation_but_soft_clipping():
    leaves = [m for m in deep_gaussian_vae((8, 8)).modules() if not list(m.children())]
    assert {type(m).__name__ for m in leaves} == {"Flatten", "Linear", "SoftClip", "Unflatten"}


@pytest.mark.parametrize("variance", [0.25, 4.0])
def test_deep_gaussian_vae_has_the_variance_given(variance):
    p = deep_gaussian_vae((3,), variance=variance, dtype=DTYPE, generator=seeded()).likelihood(
        torch.zeros(1, 1, 2).double()
    )
    assert float((2 * p.log_std).exp()) == pytest.approx(variance, rel=1e-15)


def test_largest_parameter_is_the_largest_magnitude(generator):
    model = deep_gaussian_vae((8, 8), generator=generator)
    with torch.no_grad():
        next(model.decoder.parameters())[0, 0] = -7.5
    assert float(largest_parameter(model)) == 7.5


# Parameters come from the generator


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", DRAWN)
def test_one_generator_gives_one_model_in_every_dtype(name, dtype):
    wide, narrow = (DRAWN[name](generator=seeded(), dtype=kind) for kind in (torch.float64, dtype))
    for double, parameter in zip(wide.parameters(), narrow.parameters(), strict=True):
        assert parameter.dtype == dtype and torch.equal(double.to(dtype), parameter)


@pytest.mark.parametrize("name", DRAWN)
def test_float64_parameters_are_drawn_in_float64(name):
    weight = next(DRAWN[name](generator=seeded(), dtype=DTYPE).parameters())
    assert not torch.equal(weight.float().double(), weight)


@pytest.mark.parametrize("name", DRAWN)
def test_a_generator_spares_the_global_one(name):
    before = torch.get_rng_state()
    DRAWN[name](generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_gives_another_model(name):
    first, second = (DRAWN[name](generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_weights_and_biases_fill_the_range_of_torchs_default():
    """Uniform on +-b: mean 0 and variance b^2/3, each within 5 standard errors (false alarm below 1e-5)."""
    for layer in mlp_vae((30, 30), (200,), 50, generator=seeded(), dtype=DTYPE).modules():
        if isinstance(layer, nn.Linear):
            unit = torch.cat([layer.weight.flatten(), layer.bias]).detach() * layer.in_features**0.5
            assert float(unit.abs().max()) <= 1
            assert abs(float(unit.mean())) < 5 * (1 / 3 / len(unit)) ** 0.5
            assert abs(float(unit.square().mean()) - 1 / 3) < 5 * (4 / 45 / len(unit)) ** 0.5


# Faults that the contract suite must find, each with a message that names it


class BatchStandardised(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (1 + x.var(0, correction=0)).sqrt()


class SharedScale(nn.Module):
    """A decoder whose rows influence each other."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + x.mean())


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class GlobalNoise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * torch.rand(())


class Spoiled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 1e300, x, (x - x) / (x - x))


@dataclass
class Wrapped:
    """A likelihood with another log_prob."""

    inner: Gaussian
    change: object

    @property
    def mean(self) -> Tensor:
        return self.inner.mean

    def log_prob(self, value: Tensor) -> Tensor:
        return self.change(self.inner.log_prob(value))


def with_encoder(part: nn.Module):
    def plant(model: VAE) -> VAE:
        model.encoder = nn.Sequential(model.encoder, part)
        return model

    return plant


def with_decoder(part: nn.Module):
    def plant(model: VAE) -> VAE:
        model.decoder = nn.Sequential(model.decoder, part)
        return model

    return plant


def with_head(change):
    def plant(model: VAE) -> VAE:
        head = model.head
        model.head = lambda mean: Wrapped(head(mean), change)
        return model

    return plant


def with_posterior(change):
    def plant(model: VAE) -> VAE:
        original = model.posterior
        model.posterior = lambda x: change(original(x))
        return model

    return plant


def unused(model: VAE) -> VAE:
    model.spare = nn.Parameter(torch.ones(2, dtype=DTYPE))
    return model


def other_event(model: VAE) -> VAE:
    model.decoder = nn.Sequential(model.decoder, nn.Flatten())
    return model


FAULTS = {
    "batch-standardised encoder": (with_encoder(BatchStandardised()), "row 0 of the posterior, alone or in a batch"),
    "batch-norm encoder": (
        with_encoder(nn.BatchNorm1d(6, dtype=DTYPE)),
        r"Layer 'encoder.1' \(BatchNorm1d\) is in training mode.*call model.eval\(\)",
    ),
    "decoder that mixes rows": (with_decoder(SharedScale()), "row 0 of the log-likelihood, alone or in a batch"),
    "float32 posterior": (
        with_posterior(lambda q: Gaussian(q.mean.float(), q.log_std.float())),
        "posterior mean has .*float32.*expected .*float64",
    ),
    "standard deviation of another shape": (
        with_posterior(lambda q: Gaussian(q.mean, q.log_std[:, :1])),
        r"posterior's log_std must give shape \(B, D\) = \(2, 3\), got \(2, 1\)",
    ),
    "transposed log-likelihood": (
        with_head(lambda p: p.mT),
        r"log-likelihood must give .*\(K, B\) = \(3, 2\), got \(2, 3\)",
    ),
    "log-likelihood averaged over rows": (with_head(lambda p: p.mean(1)), r"log-likelihood must give .*got \(3,\)"),
    "log-likelihood that is not a number": (with_head(Spoiled()), "log-likelihood is not finite"),
    "unused parameter": (unused, "no gradient reaches model.spare"),
    "detached encoder": (with_encoder(Detached()), "no gradient reaches model.encoder"),
    "wrong event shape": (other_event, r"x must be \(B, 64\) for this model, got shape \(4, 8, 8\)"),
    "global randomness": (with_encoder(GlobalNoise()), "random"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_model_finds(fault, generator):
    plant, message = FAULTS[fault]
    model, x = mlp_gaussian(generator)
    check_model(model, x, generator)
    with pytest.raises((AssertionError, ValueError, RuntimeError), match=message):
        check_model(plant(model), x, generator)


def test_check_model_finds_a_wrong_closed_form(generator):
    model, x = linear(generator)
    right = model.expected_log_likelihood
    model.expected_log_likelihood = lambda x, q: right(x, q) + 0.3
    with pytest.raises(
        AssertionError, match=r"expected_log_likelihood is .* standard errors from its Monte Carlo average"
    ):
        check_model(model, x, generator)


def test_check_model_finds_a_reseeded_global_generator(generator):
    model, x = mlp_gaussian(generator)
    likelihood = model.likelihood

    def reseed(z: Tensor):
        torch.default_generator.manual_seed(12345)
        return likelihood(z)

    model.likelihood = reseed
    before = torch.get_rng_state()
    with pytest.raises(AssertionError, match=r"The model \(VAE\) draws or seeds random numbers"):
        check_model(model, x, generator)
    torch.set_rng_state(before)


def test_check_model_finds_what_is_no_model(generator):
    with pytest.raises(AssertionError, match="the model is no LatentModel module"):
        check_model(nn.Linear(2, 2), torch.zeros(2, 2), generator)


# Bad input


@pytest.mark.parametrize("size", [48, "32", None])
def test_another_image_size_is_refused(size):
    with pytest.raises(ValueError, match=r"size must be one of 32, 64, got "):
        conv_vae(size)


@pytest.mark.parametrize("latents", [0, -1, 2.0, True, "2"])
@pytest.mark.parametrize("name", DRAWN)
def test_latents_below_one_or_not_an_integer_are_refused(name, latents):
    build = (
        REGISTRY[name] if name in ("linear_vae", "conv_vae") else lambda latents: REGISTRY[name]((4,), (5,), latents)
    )
    with pytest.raises(ValueError, match="latents must be an integer of at least 1, got"):
        build(latents=latents)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "build",
    [
        gaussian,
        lambda c2: linear_vae(noise_variance=c2),
        lambda c2: deep_gaussian_vae((4,), variance=c2),
        lambda c2: GaussianRegression(torch.ones(3, 2), c2),
    ],
    ids=["gaussian", "linear_vae", "deep_gaussian_vae", "GaussianRegression"],
)
def test_a_variance_that_is_not_positive_is_refused(build, variance):
    with pytest.raises(ValueError, match=r"variance must be (positive|finite and at least 0), got"):
        build(variance)


@pytest.mark.parametrize("name", DRAWN)
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="is not there: torch sees"):
        DRAWN[name](device=ABSENT_DEVICE)


def test_mean_field_refuses_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="is not there: torch sees"):
        mean_field(PoissonRegression(torch.ones(3, 2)), device=ABSENT_DEVICE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_data_that_are_not_finite_are_refused(value, generator):
    model, x = mlp_bernoulli(generator)
    x = x.index_put((torch.tensor(1), torch.tensor(2), torch.tensor(3)), torch.tensor(value, dtype=DTYPE))
    with pytest.raises(ValueError, match=r"x holds 1 NaN or infinite value\(s\)"):
        check_input(model, x)


@pytest.mark.parametrize("change", [lambda x: x * 255, lambda x: x - 0.01], ids=["bytes", "negative"])
def test_data_outside_the_unit_interval_are_refused_under_bernoulli(change, generator):
    model, x = mlp_bernoulli(generator)
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\] for a Bernoulli likelihood, got values in"):
        check_input(model, change(x))


def test_data_outside_the_unit_interval_are_taken_under_gaussian(generator):
    model, x = mlp_gaussian(generator)
    check_input(model, x * 255)


@pytest.mark.parametrize("shape", [(4, 64), (4, 8), (4, 1, 8, 8), (8, 8), (4, 9, 8)], ids=str)
def test_another_event_shape_is_refused(shape, generator):
    model, _ = mlp_bernoulli(generator)
    with pytest.raises(ValueError, match=r"x must be \(B, 8, 8\) for this model, got shape"):
        check_input(model, torch.zeros(shape, dtype=DTYPE))


@pytest.mark.parametrize("shape", [(0, 8, 8), (8,), ()], ids=str)
def test_a_batch_without_rows_is_refused(shape, generator):
    model, _ = mlp_bernoulli(generator)
    with pytest.raises(ValueError, match=r"x must be \(B, \*event\) with B at least 1, got shape"):
        check_input(model, torch.zeros(shape, dtype=DTYPE))


def test_good_data_are_taken(generator):
    model, _ = mlp_bernoulli(generator)
    check_input(model, digits(dtype=DTYPE)[:1])
