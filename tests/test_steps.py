"""A step of a fleet is each member's own: its gradient, its record, its optimizer; compiled, divided, or neither."""

import itertools

import pytest
import torch
from torch.func import grad_and_value

from tests.cases import NEEDS_COMPILER
from vaebench.gradients.estimators import ESTIMATORS, draw_noise, pathwise
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.models import conv_vae, linear_vae, mlp_vae
from vaebench.models.activations import soft_clip
from vaebench.training.compilation import Compiler, compiled
from vaebench.training.fleet import train
from vaebench.training.optimizers import adam, fused_adam, sgd
from vaebench.training.schedules import constant
from vaebench.training.steps import eager, squared_norms, step_taker

pytestmark = pytest.mark.usefixtures("scalar_code")
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


class Fleet:
    """Nets of their own, stepped through the same batches as others; the compiler has less to do with none hidden."""

    def __init__(self, members, estimator=pathwise, objective=None, dtype=torch.float64, rows=6, hidden=(4,)):
        generator = torch.Generator().manual_seed(0)
        models = [mlp_vae((5,), hidden, 2, generator=generator, dtype=dtype) for _ in range(members)]
        self.losses = [Loss(model, estimator, objective or Objective(3, 0.0)) for model in models]
        self.x = torch.rand(members, rows, 5, generator=generator, dtype=dtype)
        draws = [draw_noise(models[0], x, self.losses[0].objective, generator) for x in self.x]
        self.noise = torch.stack(draws)
        owns = [own_parameters(loss) for loss in self.losses]
        self.parameters = {name: torch.stack([own[name] for own in owns]) for name in owns[0]}

    def taker(self, build=adam, compiler=eager, size=None):
        return step_taker(self.losses[0], build(list(self.parameters.values()), 1e-2), compiler, size)

    def member(self, s):
        """Gradient and value of one member, by a loss of its own."""
        own = {name: p[s].clone() for name, p in self.parameters.items()}
        return grad_and_value(loss_function(self.losses[0]))(own, self.x[s], self.noise[s])


@pytest.mark.parametrize(
    ("compiler", "size", "members", "build"),
    [
        *itertools.product([eager], [None, 4], [1, 3], [adam, fused_adam, sgd]),
        pytest.param(compiled, 4, 3, adam, marks=NEEDS_COMPILER),
    ],
)
def test_steps_are_those_of_torch_member_by_member(compiler, size, members, build):
    hidden = (4,) if compiler is eager else ()
    fleet, other = Fleet(members, hidden=hidden), Fleet(members, hidden=hidden)
    take = fleet.taker(build, compiler, size)
    solo = [{n: p[s].clone() for n, p in other.parameters.items()} for s in range(members)]
    rules = [build(list(own.values()), 1e-2) for own in solo]
    for _ in range(3):
        found, (losses, squares) = take(fleet.parameters, fleet.x, fleet.noise)
        for s, (own, rule) in enumerate(zip(solo, rules, strict=True)):
            gradients, value = grad_and_value(loss_function(other.losses[0]))(own, fleet.x[s], fleet.noise[s])
            torch.testing.assert_close({n: g[s] for n, g in found.items()}, gradients, **CLOSE)
            torch.testing.assert_close(losses[s], value, **CLOSE)
            torch.testing.assert_close(squares[s], sum(g.square().sum() for g in gradients.values()), **CLOSE)
            for name, parameter in own.items():
                parameter.grad = gradients[name].clone()
            rule.step()
            torch.testing.assert_close({n: p[s] for n, p in fleet.parameters.items()}, own, **CLOSE)


def test_the_squared_norm_by_hand():
    found = squared_norms({"a": torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]]), "b": torch.tensor([[12.0], [2.0]])})
    assert found.tolist() == [169.0, 5.0]


@pytest.mark.parametrize(
    ("compiler", "dtype", "members"),
    [
        *itertools.product([eager], [torch.float64, torch.float32, torch.bfloat16], [1, 2]),
        pytest.param(compiled, torch.float32, 1, marks=NEEDS_COMPILER),
        pytest.param(compiled, torch.float32, 2, marks=NEEDS_COMPILER),
    ],
)
def test_a_third_partys_hook_is_never_lost(compiler, dtype, members):
    def hooked(factor):
        def estimator(model, x, noise, objective):
            q = model.posterior(x)
            z = q.transport(noise)
            if z.requires_grad:
                z.register_hook(lambda grad: factor * grad)
            return objective.bound(objective.log_weights(model, x, z, q))

        return estimator

    def encoder(factor, how):
        fleet = Fleet(members, hooked(factor), dtype=dtype, hidden=() if compiler is compiled else (4,))
        found, _ = fleet.taker(compiler=how)(fleet.parameters, fleet.x, fleet.noise)
        return {name: g for name, g in found.items() if "encoder" in name}

    without, expected, found = encoder(1.0, eager), encoder(0.5, eager), encoder(0.5, compiler)
    torch.testing.assert_close(found, expected)
    assert all(not torch.allclose(expected[name], without[name], rtol=0.1) for name in expected)


@NEEDS_COMPILER
@pytest.mark.parametrize("name", ["doubly_reparameterized", "leave_one_out"])
def test_estimators_compile_to_their_own_gradient(name):
    objective = Objective(3, 1.0)
    fleet = Fleet(2, ESTIMATORS[name], objective, hidden=())
    before = [fleet.member(s) for s in (0, 1)]
    found, (losses, _) = fleet.taker(compiler=compiled)(fleet.parameters, fleet.x, fleet.noise)
    for s, (gradients, value) in enumerate(before):
        torch.testing.assert_close({n: g[s] for n, g in found.items()}, gradients, **CLOSE)
        torch.testing.assert_close(losses[s], value, **CLOSE)


def trained(compiler, model, data, members, rule=adam, steps=20, batch=3, rate=1e-2):
    run = train(
        model, pathwise, Objective(3, 0.0), data, rule, constant(rate), steps, batch, range(members),
        checkpoints=(0, steps), compiler=compiler,
    )  # fmt: skip
    return list(run)[-1]


def small_linear(generator):
    return linear_vae(4, 2, generator=generator, dtype=torch.float64)


def soft_clipped(generator):
    return mlp_vae((4,), (4,), 2, soft_clip(5.0), generator=generator, dtype=torch.float64)


@NEEDS_COMPILER
@pytest.mark.parametrize(("make", "members"), [(small_linear, 1), (small_linear, 4), (soft_clipped, 2)])
def test_a_compiled_fleet_trains_as_the_eager_one(make, members):
    generator = torch.Generator().manual_seed(0)
    model, data = make(generator), torch.rand(12, 4, generator=generator, dtype=torch.float64)
    compiler = Compiler()
    fast, plain = trained(compiler, model, data, members), trained(eager, model, data, members)
    assert compiler.outcome == "compiled"
    torch.testing.assert_close(fast.state.parameters, plain.state.parameters, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(fast.grad_sq, plain.grad_sq, rtol=1e-7, atol=1e-10)


@NEEDS_COMPILER
def test_a_fleet_of_convolutional_nets_is_compiled_and_loses_no_gradient():
    generator = torch.Generator().manual_seed(0)
    model, data = conv_vae(32, generator=generator), torch.rand(64, 3, 32, 32, generator=generator)
    fast, plain = (trained(how, model, data, 2, fused_adam, 2, 32, 1e-4) for how in (compiled, eager))
    torch.testing.assert_close(fast.grad_sq, plain.grad_sq, rtol=1e-2, atol=0)
    torch.testing.assert_close(fast.losses, plain.losses, rtol=1e-4, atol=0)
    start = dict(model.named_parameters())
    assert not any(torch.equal(p[0], start[name.removeprefix("model.")]) for name, p in fast.state.parameters.items())
