"""An estimator that declares more noise than (K, B, D) is given it everywhere, and a faulty one is found."""

from functools import partial

import pytest
import torch
from torch import nn

from vaebench.data import digits
from vaebench.experiments.certifying import ask
from vaebench.experiments.certifying.cost import OWN, measure_cost
from vaebench.gates import contract
from vaebench.gates.paired import closest, differences
from vaebench.gates.subject import separated
from vaebench.gradients import Loss, Objective, analytic_kl, draw_noise, noise_shape, pathwise
from vaebench.gradients.noise import declared_noise
from vaebench.gradients.trial import check_loss
from vaebench.measures.likelihood import bound_draws
from vaebench.measures.moments import conditional, gradient_moments
from vaebench.measures.probes import gradient_variance
from vaebench.models import linear_vae, mlp_vae
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS
from vaebench.training.schedules import constant


@noise_shape(lambda samples, latents: (2 * samples, latents))
def twice(model, x, noise, objective):
    """The mean of two independent pathwise gradients: half of the variance, exactly."""
    return sum(pathwise(model, x, part, objective) for part in noise.split(objective.samples)) / 2


def masked(below):
    """Rows kept where a number of theirs lies above `below`, and doubled: without bias at 0 alone."""

    @noise_shape(lambda samples, latents: (samples, latents + 1))
    def estimator(model, x, noise, objective):
        return 2 * (noise[0, :, -1] > below) * pathwise(model, x, noise[..., :-1], objective)

    return estimator


class Counting:
    """An estimator that is an object, with its declaration as a method."""

    def noise_shape(self, samples, latents):
        return samples + 1, latents

    def __call__(self, model, x, noise, objective):
        return pathwise(model, x, noise[:-1], objective)


def linear(generator):
    return linear_vae(generator=generator, dtype=torch.float64)


def pixels():
    return digits(dtype=torch.float64).flatten(1)[:64]


def test_what_is_declared():
    assert declared_noise(pathwise, 5, 3) == (5, 3)
    assert declared_noise(twice, 5, 3) == declared_noise(partial(twice), 5, 3) == (10, 3)
    assert declared_noise(Counting(), 5, 3) == (6, 3)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        (lambda k, d: (k - 1, d), r"is \(4, 3\) for \(K, D\) = \(5, 3\), and must not be less"),
        (lambda k, d: (k, d - 1), "must not be less"),
        (lambda k, d: k, "whole numbers, got 5"),
        (lambda k, d: (k, 1.5 * d), "whole numbers"),
    ],
)
def test_what_cannot_be_declared_is_one_sentence(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        declared_noise(noise_shape(shape)(lambda *arguments: None), 5, 3)


def test_noise_is_drawn_as_declared_and_a_built_in_estimator_gets_its_part(generator):
    model, objective = linear(generator), Objective(3)
    x = torch.zeros(4, 6, dtype=torch.float64)
    noise = draw_noise(model, x, objective, generator, twice)
    assert noise.shape == Loss(model, twice, objective).noise_shape(4) == (6, 4, 2)
    assert torch.equal(Loss(model, pathwise, objective).own_part(noise), noise[:3])


def test_check_estimator_passes_what_is_right_and_finds_what_is_not(generator):
    """At 1e-8; keeping rows above 0.5 makes the gradient 38 % too small."""
    contract.check_estimator(masked(0.0), Objective(), generator)
    with pytest.raises(AssertionError, match="the mean gradient is biased"):
        contract.check_estimator(masked(0.5), Objective(), generator)


def test_training_draws_it_and_a_member_is_its_solo_run(generator):
    shapes, ends = [], []
    for seeds in ([1, 2], [2]):
        loop = train(
            linear(torch.Generator().manual_seed(0)), twice, Objective(3), torch.ones(8, 6).double(),
            OPTIMIZERS["sgd"], constant(0.01), 3, 4, seeds, checkpoints=(0, 3),
            observe=lambda step: shapes.append(tuple(step.noise.shape)),
        )  # fmt: skip
        *_, last = loop
        ends.append(last.state.member(len(seeds) - 1))
    assert set(shapes) == {(2, 6, 4, 2), (1, 6, 4, 2)}
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-9, atol=1e-12)


def test_moments_halve_with_twice_the_draws(generator):
    """Given the batch: log variance apart by log 2, within five standard errors."""
    model, x = linear(generator), torch.ones(4, 6, dtype=torch.float64)
    found = []
    for estimator in (pathwise, twice):
        loss = Loss(model, estimator, Objective())
        found.append(gradient_variance(gradient_moments(loss, conditional(loss, x, generator), 4000)))
    ratio = found[1].value / found[0].value
    error = ratio * sum((one.error / one.value) ** 2 for one in found) ** 0.5
    assert abs(ratio - 0.5) < 5 * error < 0.1
    assert bound_draws(Loss(model, twice, Objective()), x, 2, generator).shape == (2,)


def test_it_costs_twice_as_much(generator):
    """FLOPs exactly, beside pathwise, which is given its own part of the noise."""
    question = ask(twice, mlp_vae((64,), (10,), 3, generator=generator), digits().flatten(1)[:64], level="fast")
    points = {(p.net, p.estimator, p.samples, p.batch): p for p in measure_cost(question, lambda line: None).points}
    assert points[OWN, "twice", 1, 8].flops == 2 * points[OWN, "pathwise", 1, 8].flops


def test_pairs_at_equal_noise_know_it(generator):
    """At 1e-8 with 256 pairs; the trusted estimator that is nearest is still found."""
    model, x = mlp_vae((64,), (10,), 3, generator=generator, dtype=torch.float64), pixels()
    assert differences(model, twice, Objective(), x, 8, 256, generator).p_value > 1e-8
    assert differences(model, masked(0.5), Objective(), x, 8, 2000, generator).p_value < 1e-8
    assert closest(model, twice, [pathwise, analytic_kl], Objective(), x[:8], generator) in (pathwise, analytic_kl)


def test_a_pair_of_surrogate_and_value_keeps_its_declaration(generator):
    @noise_shape(lambda samples, latents: (2 * samples, latents))
    def both(model, x, noise, objective):
        found = twice(model, x, noise, objective)
        return found, found.detach()

    x = torch.zeros(4, 6, dtype=torch.float64)
    parts = separated(both, linear(generator), Objective(), x)
    assert all(part is not None and declared_noise(part, 5, 3) == (10, 3) for part in parts)


def test_what_draws_for_itself_is_told_how_to_declare(generator):
    def own(model, x, noise, objective):
        return pathwise(model, x, torch.randn_like(noise), objective)

    with pytest.raises(ValueError, match=r"declare more by vaebench\.gradients\.noise_shape"):
        check_loss(Loss(linear(generator), own, Objective()), torch.zeros(4, 6).double())


def test_a_layer_that_draws_is_told_something_else(generator):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    model = mlp_vae((6,), (), 2, generator=generator)
    model.encoder.append(Noisy())
    with pytest.raises(ValueError, match="take it out"):
        check_loss(Loss(model, pathwise, Objective()), torch.zeros(4, 6))
