"""Memory flat in B and K: the same gradients to rounding, for less memory."""

import pytest
import torch
from torch.func import grad, grad_and_value, vmap

from tests import cases
from vaebench.gradients.estimators import ESTIMATORS, doubly_reparameterized, draw_noise, leave_one_out, pathwise
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.memory import DECODED, chunked, examples_at_once, micro_batched
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import count, peak_bytes
from vaebench.measures.likelihood import log_likelihood
from vaebench.measures.moments import fresh, gradients
from vaebench.models import conv_vae, linear_vae, mlp_vae
from vaebench.training.fleet import train
from vaebench.training.optimizers import adam
from vaebench.training.schedules import inverse_sqrt

CHUNKED = {"pathwise": pathwise, "doubly_reparameterized": doubly_reparameterized}


def problem(name, generator, estimator=pathwise, objective=None):
    model, x = cases.MODELS[name](generator)
    loss = Loss(model, estimator, objective or Objective(samples=5))
    return loss, x, draw_noise(model, x, loss.objective, generator)


def assert_same(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_micro_batches_are_exact_for_every_estimator(name, size, generator):
    loss, x, noise = problem("linear", generator, ESTIMATORS[name])
    parameters, function = own_parameters(loss), loss_function(loss)
    expected, value = grad_and_value(function)(parameters, x, noise)
    found, whole = micro_batched(function, size)(parameters, x, noise)
    assert_same(found, expected)
    torch.testing.assert_close(whole, value)


@pytest.mark.parametrize("name", cases.SMALL)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0), (0.0, 2.0)])
@pytest.mark.parametrize("estimator", CHUNKED)
def test_chunks_have_the_gradient_of_the_whole(estimator, alpha, beta, name, generator):
    objective = Objective(5, alpha, beta)
    loss, x, noise = problem(name, generator, CHUNKED[estimator], objective)
    expected = grad(loss_function(loss))(own_parameters(loss), x, noise)
    for size in (1, 2, 5, 9):
        parts = Loss(loss.model, chunked(CHUNKED[estimator], size), objective)
        assert_same(grad(loss_function(parts))(own_parameters(loss), x, noise), expected)
        backward = torch.autograd.grad(parts(x, noise), list(parts.parameters()))
        assert_same(dict(zip(expected, backward, strict=True)), expected)


@pytest.mark.parametrize("estimator", CHUNKED)
def test_chunks_may_be_vmapped_from_inside_and_outside(estimator, generator):
    objective = Objective(5, 0.5)
    loss, x, _ = problem("mlp_gaussian", generator, CHUNKED[estimator], objective)
    parts = Loss(loss.model, chunked(CHUNKED[estimator], 2), objective)
    noise = torch.randn(3, 5, len(x), loss.model.latents, generator=generator, dtype=x.dtype)
    stacked = {name: torch.stack([p, 1.1 * p, 0.9 * p]).requires_grad_() for name, p in own_parameters(loss).items()}
    detached = {name: p.detach() for name, p in stacked.items()}
    expected = vmap(grad(loss_function(loss)), (0, None, 0))(detached, x, noise)
    assert_same(vmap(grad(loss_function(parts)), (0, None, 0))(detached, x, noise), expected)
    outside = vmap(loss_function(parts), (0, None, 0))(stacked, x, noise).sum()
    assert_same(dict(zip(stacked, torch.autograd.grad(outside, list(stacked.values())), strict=True)), expected)


def test_a_fleet_trains_in_chunks_as_it_does_whole(generator):
    model = linear_vae(generator=generator, dtype=torch.float64)
    x = cases.linear(generator)[1]
    objective = Objective(6, 0.0)

    def end(estimator):
        settings = (objective, x, adam, inverse_sqrt(0.01), 20, 4, (0, 1))
        return list(train(model, estimator, *settings))[-1].state

    whole, parts = end(doubly_reparameterized), end(chunked(doubly_reparameterized, 4))
    for name, value in whole.parameters.items():
        torch.testing.assert_close(parts.parameters[name], value, rtol=1e-9, atol=1e-12)


def test_replicates_may_be_chunked(generator):
    loss, x, _ = problem("mlp_bernoulli", generator)
    parts = Loss(loss.model, chunked(pathwise, 2), loss.objective)
    seeded = lambda: torch.Generator().manual_seed(1)
    (one,), (other,) = (list(gradients(each, fresh(each, x, 3, seeded()), 4)) for each in (loss, parts))
    assert_same(other, one)


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - set(CHUNKED)))
def test_other_estimators_are_sent_to_micro_batches(name):
    with pytest.raises(ValueError, match=f"got {name}; use micro_batched"):
        chunked(ESTIMATORS[name], 2)


def test_sizes_are_positive():
    with pytest.raises(ValueError, match="size must be an integer of at least 1"):
        chunked(pathwise, 0)
    with pytest.raises(ValueError, match="size must be an integer of at least 1"):
        micro_batched(lambda *_: torch.zeros(()), 0)


def decoder_calls(model, monkeypatch):
    calls, likelihood = [], model.likelihood
    monkeypatch.setattr(model, "likelihood", lambda z: calls.append(len(z)) or likelihood(z))
    return calls


@pytest.mark.parametrize("estimator", CHUNKED)
def test_the_last_chunk_is_decoded_once(estimator, generator, monkeypatch):
    loss, x, noise = problem("mlp_gaussian", generator, chunked(CHUNKED[estimator], 2))
    calls = decoder_calls(loss.model, monkeypatch)
    value = loss(x, noise)
    assert calls == [2, 2, 1]
    first = torch.autograd.grad(value, list(loss.parameters()), retain_graph=True)
    assert calls == [2, 2, 1, 2, 2]
    again = torch.autograd.grad(value, list(loss.parameters()))  # the graph that waited is spent
    assert calls[5:] == [1, 2, 2]
    assert all(map(torch.equal, first, again))


def test_values_alone_keep_no_graph(generator, monkeypatch):
    loss, x, noise = problem("mlp_gaussian", generator, chunked(pathwise, 2))
    recorded = []
    monkeypatch.setattr("vaebench.gradients.memory._recorded", lambda *_: recorded.append(1))
    with torch.no_grad():
        value = loss(x, noise)
    assert not recorded
    torch.testing.assert_close(value, Loss(loss.model, pathwise, loss.objective)(x, noise).detach())


def test_micro_batches_leave_the_parameters_alone(generator):
    """And may be taken where gradients are off, of parameters that want one, and of some that are not used."""
    loss, x, noise = problem("linear", generator)
    expected, value = grad_and_value(loss_function(loss))(own_parameters(loss), x, noise)
    parameters = dict(loss.named_parameters()) | {"unused": torch.ones(2, requires_grad=True)}

    def function(given, rows, draws):
        return loss_function(loss)({name: given[name] for name in expected}, rows, draws)

    with torch.no_grad():
        found, whole = micro_batched(function, 3)(parameters, x, noise)
    assert torch.equal(found.pop("unused"), torch.zeros(2))
    assert_same(found, expected)
    assert_same({"value": whole}, {"value": value})
    assert all(p.grad is None and not g.requires_grad for p, g in zip(loss.parameters(), found.values(), strict=True))


def test_micro_batches_may_be_vmapped(generator):
    loss, x, _ = problem("mlp_gaussian", generator)
    noise = torch.randn(3, 5, len(x), loss.model.latents, generator=generator, dtype=x.dtype)
    expected, value = vmap(grad_and_value(loss_function(loss)), (None, None, 0))(own_parameters(loss), x, noise)
    found, whole = vmap(micro_batched(loss_function(loss), 3), (None, None, 0))(own_parameters(loss), x, noise)
    assert_same(found, expected)
    assert_same({"value": whole}, {"value": value})


def on(device, size, samples, estimator):
    """Of the 784-200-200-50 net, a batch and its noise: the gradient as a call. They are not counted; it is."""
    model, objective = mlp_vae((28, 28), device=device), Objective(samples, 0.0)
    x, noise = torch.empty(size, 28, 28, device=device), torch.empty(samples, size, 50, device=device)
    return lambda: torch.autograd.grad(Loss(model, estimator, objective)(x, noise), list(model.parameters()))


def test_peaks_are_the_same_without_numbers():
    for estimator in (pathwise, chunked(pathwise, 3), doubly_reparameterized, chunked(doubly_reparameterized, 3)):
        assert peak_bytes(on("meta", 4, 8, estimator)) == peak_bytes(on("cpu", 4, 8, estimator))


@pytest.mark.parametrize("estimator", CHUNKED)
def test_the_peak_of_many_samples_is_that_of_one_chunk(estimator):
    """B = 256, K = 5,000, against the undivided gradient of one chunk alone."""
    one = peak_bytes(on("meta", 256, 100, CHUNKED[estimator]))
    assert peak_bytes(on("meta", 256, 5000, chunked(CHUNKED[estimator], 100))) <= 1.2 * one


def test_transforms_hold_one_chunk_as_well(generator):
    model = mlp_vae((8, 8), generator=generator)
    x = torch.rand(32, 8, 8, generator=generator)

    def peak_of(samples):
        loss = Loss(model, chunked(pathwise, 50), Objective(samples, 0.0))
        noise = draw_noise(model, x, loss.objective, generator)
        return peak_bytes(lambda: grad(loss_function(loss))(own_parameters(loss), x, noise))

    assert peak_of(1000) <= 1.2 * peak_of(50)


def test_the_log_likelihood_takes_less_than_one_chunk(generator):
    """K = 5,000; examples come 64 at a time, so that more of them need no more."""
    loss = Loss(mlp_vae((28, 28), generator=generator), pathwise, Objective())
    x = torch.rand(64, 28, 28, generator=generator)
    peak = peak_bytes(lambda: log_likelihood(loss, x, 5000, generator))
    assert peak <= peak_bytes(on("meta", 256, 50, pathwise))


def test_micro_batches_hold_one_of_them(generator):
    model = conv_vae(32, generator=generator)
    objective = Objective(10, 0.0)
    loss = Loss(model, pathwise, objective)
    x = torch.rand(64, 3, 32, 32, generator=generator)
    noise, parameters = draw_noise(model, x, objective, generator), own_parameters(loss)
    whole = count(lambda: grad(loss_function(loss))(parameters, x, noise)).peak_bytes
    parts = count(lambda: micro_batched(loss_function(loss), 8)(parameters, x, noise)).peak_bytes
    assert parts < whole / 2.5


def test_leave_one_out_has_no_chunks_but_micro_batches(generator):
    loss, x, noise = problem("mlp_gaussian", generator, leave_one_out)
    expected = grad(loss_function(loss))(own_parameters(loss), x, noise)
    assert_same(micro_batched(loss_function(loss))(own_parameters(loss), x, noise)[0], expected)


@pytest.mark.parametrize(
    ("rows", "most", "size"), [(32, 64, 64), (32, 32, 32), (32, 31, 16), (30, 16, 15), (31, 16, 16), (1, 1, 1)]
)
def test_parts_are_even_where_they_can_be_and_a_small_batch_is_one(rows, most, size):
    x, noise = torch.empty(rows, 4, device="meta"), torch.empty(DECODED // most // 4, rows, 2, device="meta")
    assert examples_at_once(x, noise) == size
    assert examples_at_once(x, noise, 3) == 3
