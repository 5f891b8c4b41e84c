"""Compiled gradients are the eager ones, for any number of shapes, and one that lost a part is refused."""

import pytest
import torch
from torch.func import grad_and_value

from tests.cases import NEEDS_COMPILER
from vaebench.gradients.estimators import doubly_reparameterized, draw_noise, pathwise
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.memory import micro_batched
from vaebench.gradients.objectives import Objective
from vaebench.models import conv_vae, linear_vae, mlp_vae
from vaebench.models.activations import soft_clip
from vaebench.models.elementary import compiling
from vaebench.training.compilation import compiled, compiled_step, gradient
from vaebench.training.fleet import train
from vaebench.training.optimizers import adam, fused_adam
from vaebench.training.schedules import constant
from vaebench.training.steps import eager_step

pytestmark = NEEDS_COMPILER


def problem(estimator=pathwise, rows=6, samples=3):
    generator = torch.Generator().manual_seed(0)
    model = mlp_vae((5,), (4,), 2, generator=generator, dtype=torch.float64)
    x = torch.rand(rows, 5, generator=generator, dtype=torch.float64)
    loss = Loss(model, estimator, Objective(samples, 0.0))
    return loss, x, draw_noise(model, x, loss.objective, generator)


@pytest.mark.parametrize("estimator", [pathwise, doubly_reparameterized])
def test_the_compiled_gradient_is_the_eager_one(estimator):
    loss, x, noise = problem(estimator)
    function, parameters = loss_function(loss), own_parameters(loss)
    found, expected = gradient(function)(parameters, x, noise), grad_and_value(function)(parameters, x, noise)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert not any(g.requires_grad for g in found[0].values())


def test_every_shape_is_compiled_once():
    entered = []

    def differentiate(parameters, x, noise):
        entered.append((len(x), compiling()))
        return grad_and_value(lambda p: (p["w"] * x).square().sum() + noise.sum())(parameters)

    fast, x, noise = compiled(differentiate), torch.arange(6.0).view(3, 2), torch.ones(1, 3, 1)
    for rows in (1, 2, 3, 1, 2, 3):
        fast({"w": torch.ones(2)}, x[:rows], noise[:, :rows])
    assert entered == [(rows, traced) for rows in (1, 2, 3) for traced in (True, False)]


def test_other_layouts_of_the_parameters_are_other_inputs():
    fast = compiled(lambda parameters, x, noise: grad_and_value(lambda p: (p["w"] * x).square().sum())(parameters))
    x, noise = torch.arange(6.0).view(3, 2), torch.ones(1, 3, 1)
    wide = torch.arange(12.0).view(3, 4)
    for w in (wide[:, :2], wide[:, 1::2], wide[:1, :2], wide[:, :2].double(), wide.T[:2].T):
        found, value = fast({"w": w}, x, noise)
        torch.testing.assert_close(found["w"], 2 * w * x.square() if len(w) > 1 else (2 * w * x.square()).sum(0, True))
        torch.testing.assert_close(value, (w * x).square().sum())


def test_a_lost_part_is_refused():
    loss, x, noise = problem()
    function = loss_function(loss)

    def losing(parameters, x, noise):
        found, value = grad_and_value(function)(parameters, x, noise)
        if compiling():
            found = found | {"model.encoder.1.bias": torch.zeros_like(found["model.encoder.1.bias"])}
        return found, value

    with pytest.raises(RuntimeError, match=r"compiled gradient of model\.encoder\.1\.bias.* is off by"):
        compiled(losing)(own_parameters(loss), x, noise)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_value_is_refused(lost):
    loss, x, noise = problem()

    def losing(parameters, x, noise):
        found, value = grad_and_value(loss_function(loss))(parameters, x, noise)
        values = [value, torch.ones_like(value)]
        return found, torch.stack([0 * v if compiling() and i == lost else v for i, v in enumerate(values)])

    with pytest.raises(RuntimeError, match=f"compiled value {lost}, of norm .*, is off by"):
        compiled(losing)(own_parameters(loss), x, noise)


def test_what_cannot_be_traced_is_refused():
    loss, x, noise = problem()

    def breaking(parameters, x, noise):
        return grad_and_value(loss_function(loss))(parameters, x if x.sum() > 0 else -x, noise)

    with pytest.raises(RuntimeError, match="Compilation failed"):
        compiled(breaking)(own_parameters(loss), x, noise)


def test_micro_batches_of_a_compiled_gradient():
    loss, x, noise = problem(rows=5)
    function, parameters = loss_function(loss), own_parameters(loss)
    found = micro_batched(function, 2, gradient)(parameters, x, noise)
    torch.testing.assert_close(found, grad_and_value(function)(parameters, x, noise), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("members", [1, 4])
def test_a_compiled_fleet_trains_as_the_eager_one(members):
    generator = torch.Generator().manual_seed(0)
    model = linear_vae(4, 2, generator=generator, dtype=torch.float64)
    data = torch.randn(12, 4, generator=generator, dtype=torch.float64)

    def trained(stepper):
        objective = Objective(3, 0.0)
        run = train(
            model, pathwise, objective, data, adam, constant(1e-2), 20, 3, range(members), checkpoints=(0, 20),
            stepper=stepper,
        )  # fmt: skip
        return list(run)[-1]

    fast, plain = trained(compiled_step), trained(eager_step)
    torch.testing.assert_close(fast.state.parameters, plain.state.parameters, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(fast.grad_sq, plain.grad_sq, rtol=1e-7, atol=1e-10)


def test_a_fleet_of_soft_clipped_nets_is_compiled():
    """torch.compile knows no Function under vmap: a compiled perceptron has none."""
    generator = torch.Generator().manual_seed(0)
    model = mlp_vae((5,), (4,), 2, soft_clip(5.0), generator=generator, dtype=torch.float64)
    data = torch.rand(12, 5, generator=generator, dtype=torch.float64)

    def trained(stepper):
        return list(
            train(model, pathwise, Objective(3, 0.0), data, adam, constant(1e-2), 5, 3, [0, 1], stepper=stepper)
        )[-1]

    fast, plain = trained(compiled_step), trained(eager_step)
    torch.testing.assert_close(fast.state.parameters, plain.state.parameters, rtol=1e-8, atol=1e-10)


def test_convolutions_lose_no_gradient():
    """A Function's needs_input_grad misled torch.compile, which left most weights without a gradient."""
    generator = torch.Generator().manual_seed(0)
    model = conv_vae(32, generator=generator)
    x, objective = torch.rand(32, 3, 32, 32, generator=generator), Objective(1, 0.0)
    loss = Loss(model, pathwise, objective)
    found, _ = gradient(loss_function(loss))(own_parameters(loss), x, draw_noise(model, x, objective, generator))
    assert set(found) == set(own_parameters(loss)) and all(g.any() for g in found.values())


def test_a_fleet_of_convolutional_nets_is_compiled():
    generator = torch.Generator().manual_seed(0)
    model, data = conv_vae(32, generator=generator), torch.rand(64, 3, 32, 32, generator=generator)

    def trained(stepper):
        objective, schedule = Objective(), constant(1e-3)
        run = train(model, pathwise, objective, data, fused_adam, schedule, 2, 32, [0, 1], stepper=stepper)
        return list(run)[-1]

    fast, plain = trained(compiled_step), trained(eager_step)
    torch.testing.assert_close(fast.grad_sq, plain.grad_sq, rtol=1e-3, atol=0)
    torch.testing.assert_close(fast.losses, plain.losses, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 2e-6), (torch.float64, 1e-14)], ids=str)
def test_another_tangent_is_compiled_in_single_precision(dtype, allowed):
    def differentiate(parameters, x, noise):
        return grad_and_value(lambda p: (p["w"] * x).tanh().sum())(parameters)

    w, x = torch.linspace(-9, 9, 999, dtype=dtype), torch.ones(999, dtype=dtype)
    found, value = compiled(differentiate)({"w": w}, x, x)
    exact = 1 - w.double().tanh() ** 2
    assert (found["w"] - exact).abs().max() < allowed
    assert (value - w.double().tanh().sum()).abs() < 100 * allowed
