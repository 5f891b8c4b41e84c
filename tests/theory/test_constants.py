"""Certified constants hold everywhere tried; measured ones cover at their level; the two types differ."""

import math

import numpy as np
import pytest
import torch
from torch.func import grad, jacrev

from vaebench.theory import constants, quadrature
from vaebench.theory.constants import DeepGaussian, Layer, Reach


def soft_clip(x, layer):
    s = layer.sharpness
    soft = torch.nn.functional.softplus
    return (soft(s * (x - layer.low)) - soft(s * (x - layer.high))) / s + layer.low


@pytest.mark.parametrize("sharpness", [1.0, 5.0])
def test_the_activation_obeys_its_bounds_and_attains_them(sharpness):
    layer = Layer(1.0, 1, -2.0, 3.0, sharpness)
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    slope = torch.func.vmap(grad(lambda t: soft_clip(t, layer)))(x)
    curve = torch.func.vmap(grad(grad(lambda t: soft_clip(t, layer))))(x)
    steepest = math.tanh(sharpness * 5 / 4)
    assert slope.max() <= steepest * (1 + 1e-12)
    assert float(slope.max()) == pytest.approx(steepest, rel=1e-4)
    assert curve.abs().max() <= sharpness / 4
    assert float(curve.abs().max()) == pytest.approx(sharpness / 4, rel=0.05)
    assert soft_clip(x, layer).min() >= -2 - 1e-12
    assert soft_clip(x, layer).max() <= 3 + 1e-12


def weights(layers, inputs, generator):
    """Random weights on the boundary of the layers' balls, random biases."""
    blocks = []
    for layer in layers:
        w = torch.randn(layer.width, inputs, generator=generator, dtype=torch.float64)
        blocks.append(w * layer.norm / torch.linalg.matrix_norm(w, 2))
        blocks.append(torch.randn(layer.width, generator=generator, dtype=torch.float64))
        inputs = layer.width
    return blocks


def forward(blocks, layers, h):
    for w, b, layer in zip(blocks[::2], blocks[1::2], layers, strict=True):
        h = soft_clip(h @ w.mT + b, layer)
    return h


def pack(blocks):
    return torch.cat([b.flatten() for b in blocks])


def unpack(vector, blocks):
    parts = vector.split([b.numel() for b in blocks])
    return [p.reshape(b.shape) for p, b in zip(parts, blocks, strict=True)]


def test_propagation_bounds_the_derivatives_of_a_network(generator):
    layers = [Layer(1.5, 4, -1.0, 1.0, 2.0), Layer(1.0, 3, -1.0, 2.0, 1.0)]
    x = torch.randn(5, generator=generator, dtype=torch.float64)
    reach = constants.propagate(layers, Reach(float(x.norm())))
    for _ in range(5):
        blocks = weights(layers, 5, generator)
        output = lambda v, b=blocks: forward(unpack(v, b), layers, x)
        vector = pack(blocks)
        assert output(vector).norm() <= reach.value
        assert torch.linalg.matrix_norm(jacrev(output)(vector), 2) <= reach.first
        second = jacrev(jacrev(output))(vector)
        direction = torch.randn(3, generator=generator, dtype=torch.float64)
        direction = direction / direction.norm()
        curve = torch.linalg.eigvalsh(torch.tensordot(direction, second, 1)).abs().max()
        assert curve <= reach.second


def test_propagation_by_hand():
    """J_u^2 = 1 + 1 + 4 * 9 = 38, K_u = 2 * 5 + 3 = 13, slope 1, s/4 = 1."""
    reach = constants.propagate([Layer(2.0, 4, -50.0, 40.0, 4.0)], Reach(1.0, 3.0, 5.0))
    assert reach == pytest.approx((100.0, math.sqrt(38), 51.0))


def test_one_layer_is_nearly_attained():
    """J of a single wide-range layer is sqrt(|x|^2 + 1): exact in its linear part."""
    layer = Layer(1.0, 1, -50.0, 50.0, 1.0)
    reach = constants.propagate([layer], Reach(2.0))
    output = lambda v: soft_clip(v[0] * 2.0 + v[1], layer)
    slope = grad(output)(torch.tensor([0.3, -0.6], dtype=torch.float64)).norm()
    assert float(slope) == pytest.approx(reach.first, rel=1e-9)


@pytest.fixture
def model():
    trunk = [Layer(1.0, 3, -1.0, 1.0, 1.0)]
    heads = [Layer(1.0, 1, -1.0, 1.0, 1.0)], [Layer(1.0, 1, -1.0, 0.5, 1.0)]
    return DeepGaussian(trunk, *heads, [Layer(1.0, 3, -1.0, 1.0, 1.0), Layer(1.0, 2, -2.0, 2.0, 1.0)], 1.0, 0.5, 1.5)


def negative_elbo(vector, blocks, model, x):
    """Exact to quadrature: one latent, 20 nodes."""
    parts, start = unpack(vector, [b for group in blocks for b in group]), 0
    groups = []
    for group in blocks:
        groups.append(parts[start : start + len(group)])
        start += len(group)
    hidden = forward(groups[0], model.trunk, x)
    mean, log_variance = (
        forward(groups[1], model.mean, hidden),
        forward(groups[2], model.log_variance, hidden),
    )

    def misfit(eps):
        out = forward(groups[3], model.decoder, mean + (log_variance / 2).exp() * eps)
        return (x - out).square().sum(-1) / (2 * model.noise_variance)

    kl = (log_variance.exp() + mean.square() - 1 - log_variance).sum() / 2
    return quadrature.expectation(misfit, quadrature.gauss_hermite(20)) + model.beta * kl


def test_certified_smoothness_bounds_every_hessian_tried(model, generator):
    bound = constants.certified_smoothness(model)
    assert isinstance(bound, constants.Certified)
    x = torch.tensor([0.6, -0.8], dtype=torch.float64)
    met = []
    for _ in range(4):
        shapes = [(model.trunk, 2), (model.mean, 3), (model.log_variance, 3), (model.decoder, 1)]
        blocks = [weights(layers, inputs, generator) for layers, inputs in shapes]
        vector = pack([b for group in blocks for b in group])
        hessian = jacrev(grad(negative_elbo))(vector, blocks, model, x)
        met.append(float(torch.linalg.eigvalsh(hessian).abs().max()))
    assert max(met) < float(bound)
    assert float(bound) < 1000 * max(met)  # a bound, if a loose one: depth and products cost orders


def test_certified_smoothness_adds_its_parts(model):
    """Without data fit, the divergence's bound term by term; without divergence, one Gaussian average."""
    shared = constants.propagate(model.trunk, Reach(1.0))
    mu, log_v = (constants.propagate(head, shared) for head in (model.mean, model.log_variance))
    terms = [mu.first**2, mu.value * mu.second, math.exp(0.5) * log_v.first**2 / 2]
    terms.append((math.exp(0.5) - 1) * log_v.second / 2)
    no_fit = constants.certified_smoothness(model._replace(noise_variance=1e15))
    assert float(no_fit) == pytest.approx(1.5 * sum(terms), rel=1e-9)
    total = 0.0
    rule = quadrature.trapezoid(2001)
    for eps, weight in zip(rule.nodes[:, 0].abs().tolist(), rule.weights.tolist(), strict=True):
        sd = math.exp(0.25) * eps
        second = mu.second + sd * (log_v.second / 2 + log_v.first**2 / 4)
        z = Reach(mu.value + sd, mu.first + sd * log_v.first / 2, second)
        out = constants.propagate(model.decoder, z)
        total += weight * (out.first**2 + (1.0 + out.value) * out.second) / 0.5
    no_divergence = constants.certified_smoothness(model._replace(beta=0.0))
    assert float(no_divergence) == pytest.approx(total, rel=1e-4)


def test_certified_smoothness_grows_with_what_it_should(model):
    base = float(constants.certified_smoothness(model))
    assert float(constants.certified_smoothness(model._replace(noise_variance=0.25))) > base
    assert float(constants.certified_smoothness(model._replace(beta=3.0))) > base
    assert float(constants.certified_smoothness(model._replace(decoder=[*model.decoder, model.decoder[-1]]))) > base


def test_the_two_kinds_do_not_equal_each_other():
    assert constants.Certified(2.0, "x") != constants.Measured(2.0, "x")
    assert float(constants.Measured(2.0, "x")) == 2.0


def test_measured_smoothness_is_half_as_large_again_as_what_was_seen():
    assert constants.measured_smoothness([1.0, 4.0, 2.0]).value == 6.0
    assert constants.measured_smoothness([4.0], factor=2.0).value == 8.0


def test_measured_noise_covers_at_its_level():
    """At 90 %, 20 chi-square-like replicates, 2000 trials: 80 - 92 % cover (skewness costs some)."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(2000):
        g = rng.normal(size=(20, 5)) + 1.0
        covered += float(constants.measured_noise(g, level=0.9)) >= 5.0
    assert 0.80 < covered / 2000 < 0.92
    known = constants.measured_noise(rng.normal(size=(5000, 5)), np.zeros(5))
    assert 5.0 < float(known) < 5.0 + 7 * math.sqrt(10 / 5000)
    biased = constants.measured_noise(rng.normal(size=(5000, 5)) + 1.0, np.zeros(5))  # negative control
    assert float(biased) > 9
    with pytest.raises(ValueError, match="at least two replicates, not 1"):
        constants.measured_noise(np.ones((1, 3)))
