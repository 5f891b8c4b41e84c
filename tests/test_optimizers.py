"""Optimizers: torch's defaults by name, the theorem's Adam by hand, and all of them elementwise."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vaebench.training.optimizers import OPTIMIZERS, adam, fused_adam, theorem_adam

STEPS, LR = 30, 0.1
TORCHS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "fused_adam": torch.optim.Adam,
    "amsgrad": lambda parameters, lr: torch.optim.Adam(parameters, lr=lr, amsgrad=True),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}


def gradients(*shape: int, seed: int = 0) -> Tensor:
    """(STEPS, *shape), of varied scale and with zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(STEPS, *shape, generator=generator, dtype=torch.float64)
    return torch.where(draws.abs() < 0.1, 0.0, draws**3)


def path(build, grads: Tensor, rate=lambda step: LR) -> Tensor:
    """Iterates under given gradients, from zero; `rate` overwrites the step size at every step."""
    parameter = torch.zeros_like(grads[0], requires_grad=True)
    optimizer = build([parameter], lr=LR)
    iterates = []
    for step, grad in enumerate(grads, 1):
        parameter.grad = grad.clone()
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.step()
        iterates.append(parameter.detach().clone())
    return torch.stack(iterates)


def test_every_optimizer_is_tested_here():
    assert set(OPTIMIZERS) == {*TORCHS, "theorem_adam"}


@pytest.mark.parametrize("name", TORCHS)
def test_the_defaults_are_torchs(name):
    grads = gradients(5)
    torch.testing.assert_close(path(OPTIMIZERS[name], grads), path(TORCHS[name], grads), rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stacked_parameters_are_separate_runs(name):
    members = [gradients(5, seed=seed) for seed in range(3)]
    together = path(OPTIMIZERS[name], torch.stack(members, 1))
    apart = torch.stack([path(OPTIMIZERS[name], grads) for grads in members], 1)
    torch.testing.assert_close(together, apart, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_schedule_may_overwrite_the_step_size(name):
    """Linear in the step size of the last step."""
    grads = gradients(5)
    base, doubled = (path(OPTIMIZERS[name], grads, lambda n, f=f: LR * (f if n == STEPS else 1)) for f in (1, 2))
    torch.testing.assert_close(doubled[-1] - base[-2], 2 * (base[-1] - base[-2]), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_a_gradient_stay(name):
    still, moving = (torch.ones(2, requires_grad=True) for _ in range(2))
    moving.grad = torch.ones(2)
    OPTIMIZERS[name]([still, moving], lr=LR).step()
    assert torch.equal(still, torch.ones(2)) and not torch.equal(moving, torch.ones(2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_returns_the_value_of_its_closure(name):
    parameter = torch.ones(2, requires_grad=True)
    optimizer = OPTIMIZERS[name]([parameter], lr=LR)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert not torch.equal(parameter, torch.ones(2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_from_its_saved_state(name):
    grads, half = gradients(5), STEPS // 2
    parameter = path(OPTIMIZERS[name], grads[:half])[-1].clone().requires_grad_()
    source = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    first = OPTIMIZERS[name]([source], lr=LR)
    for grad in grads[:half]:
        source.grad = grad
        first.step()
    second = OPTIMIZERS[name]([parameter], lr=LR)
    second.load_state_dict(first.state_dict())
    for grad in grads[half:]:
        parameter.grad = grad
        second.step()
    torch.testing.assert_close(parameter.detach(), path(OPTIMIZERS[name], grads)[-1], rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("last", ["parameters", "gradients", "moments"])
def test_fused_adam_knows_the_layouts_of_its_tensors(last):
    def reordered(tensor, who):
        return tensor.contiguous(memory_format=torch.channels_last) if who == last else tensor

    found = gradients(4, 3, 2, 2).float()
    start = reordered(torch.ones(found.shape[1:]), "parameters")
    mine, theirs = (start.clone().requires_grad_() for _ in range(2))
    ours, other = fused_adam([mine], LR), torch.optim.Adam([theirs], LR, foreach=False)
    for grad in found:
        for parameter, optimizer in ((mine, ours), (theirs, other)):
            parameter.grad = None
            parameter.grad = reordered(grad, "gradients")
            optimizer.step()
        state = ours.state_dict()
        state["state"][0] |= {n: reordered(state["state"][0][n], "moments") for n in ("exp_avg", "exp_avg_sq")}
        ours.load_state_dict(state)
    torch.testing.assert_close(mine, theirs)


def test_fused_adam_refuses_parameters_with_gaps():
    parameter = torch.zeros(4, 4)[:, :2]
    parameter.grad = torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"without gaps in memory, got strides \(4, 1\) of shape \(4, 2\)"):
        fused_adam([parameter], LR).step()


@pytest.mark.parametrize("eps", [1e-8, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.5, 0.6)], ids=str)
def test_theorem_adam_is_the_recursion_of_the_theorem(betas, eps):
    (b1, b2), grads = betas, gradients(5)
    x, m, v, expected = np.zeros(5), np.zeros(5), np.zeros(5), []
    for n, g in enumerate(grads.numpy(), 1):
        gamma = LR / math.sqrt(n)
        m, v = b1 * m + g, b2 * v + g * g
        x = x - gamma * (1 - b1) * math.sqrt((1 - b2**n) / (1 - b2)) * m / np.sqrt(eps + v)
        expected.append(x)
    actual = path(lambda parameters, lr: theorem_adam(parameters, lr, betas, eps), grads, lambda n: LR / math.sqrt(n))
    torch.testing.assert_close(actual, torch.from_numpy(np.stack(expected)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.5, 0.6)], ids=str)
def test_theorem_adam_is_torchs_up_to_the_stated_factor_as_eps_vanishes(betas):
    grads = gradients(5) + 0.3
    theirs = path(lambda p, lr: adam(p, lr, betas, eps=1e-30), grads)
    ours = path(lambda p, lr: theorem_adam(p, lr, betas, eps=1e-30), grads, lambda n: LR / (1 - betas[0] ** n))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_without_the_factor_theorem_adam_is_not_torchs():
    grads = gradients(5) + 0.3
    ours, theirs = (path(lambda p, lr, f=f: f(p, lr, eps=1e-30), grads) for f in (theorem_adam, adam))
    assert (ours - theirs).abs().max() > 1e-2


@pytest.mark.parametrize("betas", [(0.9, 0.9), (0.99, 0.9), (-0.1, 0.9), (0.9, 1.0)], ids=str)
def test_theorem_adam_refuses_decays_outside_the_theorem(betas):
    with pytest.raises(ValueError, match=r"theorem_adam needs 0 <= beta1 < beta2 < 1, got \("):
        theorem_adam([torch.ones(2, requires_grad=True)], LR, betas)


@pytest.mark.parametrize(("lr", "eps", "name"), [(-1.0, 1e-8, "lr"), (math.nan, 1e-8, "lr"), (LR, -1.0, "eps")])
def test_theorem_adam_refuses_negative_settings(lr, eps, name):
    with pytest.raises(ValueError, match=f"{name} must be finite and at least 0, got"):
        theorem_adam([torch.ones(2, requires_grad=True)], lr, eps=eps)
