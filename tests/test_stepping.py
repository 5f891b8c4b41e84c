"""A compiled step of Adam is torch's, whatever the optimizer did before, and one that lost a part is refused."""

import pytest
import torch
from torch.func import grad_and_value

from tests.cases import NEEDS_COMPILER
from vaebench.gradients.estimators import draw_noise, pathwise
from vaebench.gradients.loss import Loss, loss_function
from vaebench.gradients.objectives import Objective
from vaebench.models import mlp_vae
from vaebench.models.elementary import compiling
from vaebench.training import compilation
from vaebench.training.adam import adam_update
from vaebench.training.compilation import compiled_step, training_step
from vaebench.training.optimizers import adam, fused_adam, sgd
from vaebench.training.steps import eager_step

pytestmark = NEEDS_COMPILER
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


class Run:
    """A net of its own, stepped through the same batches."""

    def __init__(self, build=fused_adam, rows=6):
        generator = torch.Generator().manual_seed(0)
        self.loss = Loss(mlp_vae((5,), (4,), 2, generator=generator, dtype=torch.float64), pathwise, Objective(3, 0.0))
        self.x = torch.rand(8, rows, 5, generator=generator, dtype=torch.float64)
        self.noise = [draw_noise(self.loss.model, x, self.loss.objective, generator) for x in self.x]
        self.parameters = dict(self.loss.named_parameters())
        self.optimizer = build(list(self.parameters.values()), 1e-2)
        self.differentiate = grad_and_value(loss_function(self.loss))
        self.number = 0

    def go_on(self, step, number=1):
        for _ in range(number):
            self.optimizer.param_groups[0]["lr"] = 1e-2 / (self.number + 1)
            found = step(self.parameters, self.x[self.number], self.noise[self.number])
            self.number += 1
        return found

    def eager(self, number=1):
        return self.go_on(eager_step(self.differentiate, self.optimizer), number)

    def state(self):
        return list(self.parameters.values()), self.optimizer.state_dict()["state"]


def torchs(parameters, lr):
    return torch.optim.Adam(parameters, lr)


@pytest.mark.parametrize("build", [fused_adam, adam, sgd])
def test_compiled_steps_are_torchs(build):
    run, other = Run(build), Run(torchs if build is fused_adam else build)
    step = compiled_step(run.differentiate, run.optimizer)
    for _ in range(5):
        torch.testing.assert_close(run.go_on(step), other.eager(), **CLOSE)
        torch.testing.assert_close(run.state()[0], other.state()[0], **CLOSE)
    for mine, theirs in zip(run.state()[1].values(), other.state()[1].values(), strict=True):
        torch.testing.assert_close(dict(mine), dict(theirs), **CLOSE)


def test_compiled_steps_and_others_in_turn():
    run, other = Run(), Run(torchs)
    step = compiled_step(run.differentiate, run.optimizer)
    run.go_on(step), run.eager(), run.go_on(step)
    run.optimizer.load_state_dict(run.optimizer.state_dict())
    run.go_on(step), run.eager()
    other.eager(5)
    torch.testing.assert_close(run.state()[0], other.state()[0], **CLOSE)
    assert {float(state["step"]) for state in run.state()[1].values()} == {5}


@pytest.mark.parametrize("size", [None, 3, 4])
def test_training_steps_divide_the_batch(size):
    run, other = Run(), Run(torchs)
    step = training_step(loss_function(run.loss), run.optimizer, size)
    torch.testing.assert_close(run.go_on(step, 3), other.eager(3), **CLOSE)
    torch.testing.assert_close(run.state()[0], other.state()[0], **CLOSE)


def test_other_settings_are_compiled_anew():
    run, other = Run(), Run(torchs)
    step = compiled_step(run.differentiate, run.optimizer)
    for one, take in ((run, lambda: run.go_on(step)), (other, other.eager)):
        for betas, eps in (((0.9, 0.999), 1e-8), ((0.5, 0.9), 1e-8), ((0.5, 0.9), 1e-2), ((0.9, 0.999), 1e-8)):
            one.optimizer.param_groups[0].update(betas=betas, eps=eps)
            take()
    torch.testing.assert_close(run.state()[0], other.state()[0], **CLOSE)


LOSSES = {
    "step": lambda p, m, v, g, *rest: adam_update(p.clone(), m, v, g, *rest),
    "change of the mean": lambda p, m, v, g, *rest: adam_update(p, m.clone(), v, g, *rest),
    "change of the square": lambda p, m, v, g, *rest: adam_update(p, m, v.clone(), g, *rest),
}


@pytest.mark.parametrize("what", LOSSES)
def test_a_lost_part_of_the_step_is_refused_and_taken_back(what, monkeypatch):
    def losing(*arguments):
        return (LOSSES[what] if compiling() else adam_update)(*arguments)

    run, other = Run(), Run()
    run.eager(), other.eager()
    step = compiled_step(run.differentiate, run.optimizer)
    with monkeypatch.context() as patch:
        patch.setattr(compilation, "adam_update", losing)
        with pytest.raises(RuntimeError, match=f"compiled {what} of .* is off by"):
            run.go_on(step)
    torch.testing.assert_close(run.state(), other.state(), rtol=0, atol=0)
    run.go_on(step), other.eager()
    torch.testing.assert_close(run.state(), other.state(), **CLOSE)


def test_a_lost_count_is_refused(monkeypatch):
    def losing(found, parameters, *state, **settings):
        *moments, counter, rate, root = state
        kept(found, parameters, *moments, counter.clone() if compiling() else counter, rate, root, **settings)

    run, kept = Run(), compilation._update
    monkeypatch.setattr(compilation, "_update", losing)
    with pytest.raises(RuntimeError, match="compiled change of the counter, of norm 1, is off by 1"):
        run.go_on(compiled_step(run.differentiate, run.optimizer))


def test_a_lost_gradient_is_refused_and_nothing_moves():
    run, other = Run(), Run()

    def losing(parameters, x, noise):
        found, value = run.differentiate(parameters, x, noise)
        return {name: 0 * g if compiling() else g for name, g in found.items()}, value

    with pytest.raises(RuntimeError, match=r"compiled gradient of .* is off by"):
        run.go_on(compiled_step(losing, run.optimizer))
    torch.testing.assert_close(run.state()[0], other.state()[0], rtol=0, atol=0)


def test_a_first_gradient_that_is_not_finite_is_refused_and_nothing_moves():
    run, other = Run(), Run()
    run.x[0] = torch.nan
    with pytest.raises(RuntimeError, match=r"gradient of .* has norm nan"):
        run.go_on(compiled_step(run.differentiate, run.optimizer))
    torch.testing.assert_close(run.state()[0], other.state()[0], rtol=0, atol=0)


def test_other_parameters_than_the_optimizers_are_refused():
    run, other = Run(), Run()
    step = compiled_step(run.differentiate, run.optimizer)
    backwards = dict(reversed(run.parameters.items()))
    for parameters in (other.parameters, backwards, dict(list(run.parameters.items())[1:])):
        with pytest.raises(ValueError, match="all parameters of an optimizer of one group"):
            step(parameters, run.x[0], run.noise[0])
    run.optimizer.add_param_group({"params": [torch.zeros(2)]})
    with pytest.raises(ValueError, match="all parameters of an optimizer of one group"):
        run.go_on(step)


def test_parameters_that_took_different_numbers_of_steps_are_refused():
    run = Run()
    next(iter(run.parameters.values())).grad = torch.zeros_like(next(iter(run.parameters.values())))
    run.optimizer.step()
    with pytest.raises(ValueError, match=r"took as many steps, got \[0\.0, 1\.0\]"):
        run.go_on(compiled_step(run.differentiate, run.optimizer))
