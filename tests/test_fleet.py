"""Fleets: member s is the solo run of seed s, and what is reported of it is true."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import vmap

from vaebench.data import linear_gaussian, patches
from vaebench.data.sampling import epochwise, with_replacement
from vaebench.gates import contract as testing
from vaebench.gradients.estimators import ESTIMATORS, doubly_reparameterized, exact, pathwise
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.measures import moments, probes
from vaebench.measures.likelihood import bound
from vaebench.models import GaussianRegression, deep_gaussian_vae, linear_vae, mean_field, mlp_vae
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS, adam, amsgrad, sgd
from vaebench.training.records import Checkpoint, State, geometric
from vaebench.training.schedules import constant, inverse_sqrt
from vaebench.training.snapshots import Snapshot

SEEDS = (3, 1, 4, 15)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    return linear_gaussian(64, generator=seeded(0), dtype=torch.float64)


def model(seed: int = 1):
    return linear_vae(generator=seeded(seed), dtype=torch.float64)


def run(data, seeds=SEEDS, start=None, estimator=pathwise, objective=None, optimizer=sgd, steps=20, **options):
    start = start or model()
    schedule = inverse_sqrt(0.01)
    return train(start, estimator, objective or Objective(), data, optimizer, schedule, steps, 4, seeds, **options)


def end(checkpoints):
    return list(checkpoints)[-1].state


def same(fleet, s, solo, exactly=True):
    for name, stacked in fleet.parameters.items():
        if exactly:
            torch.testing.assert_close(stacked[s], solo.parameters[name][0], rtol=1e-10, atol=1e-13, msg=name)
        else:
            torch.testing.assert_close(stacked[s], solo.parameters[name][0], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("optimizer", [sgd, adam], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_a_member_is_the_solo_run_of_its_seed(name, optimizer, data):
    settings = {"estimator": ESTIMATORS[name], "optimizer": optimizer, "objective": Objective(2), "steps": 100}
    fleet = end(run(data, **settings))
    for s in (0, 2):
        same(fleet, s, end(run(data, (SEEDS[s],), **settings)))
    assert not torch.equal(fleet.parameters["model.W"][0], fleet.parameters["model.W"][1])


@pytest.mark.parametrize("optimizer", [sgd, amsgrad], ids=["sgd", "amsgrad"])
def test_a_member_of_deep_nets_is_the_solo_run_to_rounding(optimizer, data):
    start = deep_gaussian_vae((6,), (7, 5), 2, 5.0, generator=seeded(2), dtype=torch.float64)
    settings = {"start": start, "optimizer": optimizer, "objective": Objective(3, alpha=0.0), "steps": 100}
    same(end(run(data, **settings)), 2, end(run(data, SEEDS[2:3], **settings)), exactly=False)


def test_a_member_is_the_plain_loop_on_the_same_draws(data):
    taken, start, steps = [], model(), 100
    fleet = end(run(data, optimizer=adam, start=start, steps=steps, observe=lambda step: taken.append(step.indices[1])))
    generator, loss = seeded(SEEDS[1]), Loss(model(), pathwise, Objective())
    rule = adam(loss.parameters(), lr=1.0)
    block = torch.randint(64, (256, 4), generator=generator)
    noise = torch.randn(256, 1, 4, 2, generator=generator, dtype=torch.float64)
    for n in range(steps):
        rule.param_groups[0]["lr"] = 0.01 / math.sqrt(n + 1)
        rule.zero_grad()
        loss(data[block[n]], noise[n]).backward()
        rule.step()
        assert torch.equal(taken[n], block[n])
    for name, parameter in loss.named_parameters():
        torch.testing.assert_close(fleet.parameters[name][1], parameter.detach(), rtol=1e-10, atol=1e-13)
    assert torch.equal(start.W, model().W), "training left the model alone"


def hooked(model, x, noise, objective):
    """A third party's estimator whose gradient a hook doubles."""
    q = model.posterior(x)
    z = q.transport(noise)
    if z.requires_grad:
        z.register_hook(lambda grad: 2 * grad)
    return objective.bound(objective.log_weights(model, x, z, q))


@pytest.mark.parametrize("estimator", [pathwise, doubly_reparameterized, hooked], ids=lambda e: e.__name__)
def test_the_gradients_of_a_fleet_are_the_estimators_own(estimator, data):
    """A backward pass from outside vmap loses the hooks of an estimator, without an error."""
    steps, objective = [], Objective(3, alpha=0.0)
    end(run(data, estimator=estimator, objective=objective, steps=2, observe=steps.append))
    for s, seed in enumerate(SEEDS):
        generator, loss = seeded(seed), Loss(model(), estimator, objective)
        block = torch.randint(64, (256, 4), generator=generator)
        noise = torch.randn(256, 3, 4, 2, generator=generator, dtype=torch.float64)
        assert torch.equal(steps[0].indices[s], block[0])
        for parameter, expected in testing.gradient(loss, data[block[0]], noise[0]).items():
            torch.testing.assert_close(steps[0].gradients[parameter][s], expected)


def test_an_observer_sees_the_step_that_was_taken(data):
    steps, before = [], [{n: p.clone() for n, p in end(run(data, steps=1, checkpoints=(0, 1))).parameters.items()}]

    def observe(step):
        after = {name: tensor.clone() for name, tensor in step.after.items()}
        steps.append(step._replace(after=after))

    points = list(run(data, steps=12, checkpoints=(0, 5, 12), observe=observe))
    for n, step in enumerate(steps, 1):
        assert step.number == n and step.gamma == pytest.approx(0.01 / math.sqrt(n))
        for name, gradient in step.gradients.items():
            torch.testing.assert_close(step.after[name], step.before[name] - step.gamma * gradient, rtol=1e-14, atol=0)
            assert n == 1 or torch.equal(step.before[name], steps[n - 2].after[name])
    assert torch.equal(steps[0].after["model.W"], before[0]["model.W"])
    assert [point.losses.shape for point in points] == [(0, 4), (5, 4), (7, 4)]
    assert torch.equal(torch.cat([p.losses for p in points]), torch.stack([step.losses for step in steps]))
    norms = [sum(g.flatten(1).square().sum(1) for g in step.gradients.values()) for step in steps]
    torch.testing.assert_close(torch.cat([p.grad_sq for p in points]), torch.stack(norms))


def test_a_fleet_of_exact_gradients_is_one_vmap(data):
    state, loss = end(run(data)), Loss(model(), pathwise, Objective())
    stacked = vmap(lambda p: probes.exact_gradient(loss, data, p))(state.parameters)
    for s in range(4):
        for name, gradient in probes.exact_gradient(loss, data, state.member(s)).items():
            torch.testing.assert_close(stacked[name][s], gradient)


def test_checkpoints_carry_copies_and_probes(data):
    def gap(parameters):
        return probes.squared_norm(probes.exact_gradient(loss, data, parameters))

    def measured(parameters):
        draws = moments.fresh(loss, data, 4, seeded(9))
        return probes.grad_sq(moments.gradient_moments(loss, draws, 16, parameters))

    loss, columns = Loss(model(), exact, Objective()), {}
    columns = {"exact": lambda state: state.each(gap), "U": lambda state: state.each(measured)}
    points = list(run(data, probes=columns, checkpoints=(0, 2, 20)))
    assert [point.state.step for point in points] == [0, 2, 20]
    torch.testing.assert_close(points[0].state.parameters["model.W"], model().W.detach().expand(4, 6, 2))
    assert points[1].values["exact"].shape == (4,) and points[1].values["U"].shape == (4, 2)
    assert points[1].values["exact"][2] == gap(points[1].state.member(2))
    row = points[1].rows()[2]
    assert list(row) == ["step", "seed", "step_loss", "step_grad_sq", "exact", "U", "U_error"]
    assert row["step"] == 2 and row["seed"] == 4 and row["U_error"] == points[1].values["U"][2, 1]
    assert row["step_loss"] == pytest.approx(float(points[1].losses[:, 2].mean()))
    assert list(points[0].rows()[0]) == ["step", "seed", "exact", "U", "U_error"]


def test_rows_carry_means_since_the_last_checkpoint_and_probes_with_their_errors():
    """Losses 1, 3 and squares 2, 6 of one member: means 2 and 4."""
    loss = Loss(model(), pathwise, Objective())
    state = State(2, own_parameters(loss), loss, torch.zeros(1, 6), (7,))
    values = {"bound": torch.tensor([[5.0, 0.5]])}
    (row,) = Checkpoint(state, torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [6.0]]), values, ()).rows()
    assert row == {"step": 2, "seed": 7, "step_loss": 2, "step_grad_sq": 4, "bound": 5, "bound_error": 0.5}


def test_a_member_is_finite_if_all_its_parameters_are():
    loss = Loss(model(), pathwise, Objective())
    stacked = {name: p.expand(3, *p.shape).clone() for name, p in own_parameters(loss).items()}
    first, *_, last = stacked
    stacked[first][0].fill_(math.nan)
    stacked[last][2].fill_(math.inf)
    assert State(0, stacked, loss, torch.zeros(1, 6), (1, 2, 3)).finite().tolist() == [False, True, False]


def test_each_member_may_start_from_its_own_model(data):
    starts = [model(s) for s in SEEDS]
    fleet = end(run(data, start=starts))
    same(fleet, 2, end(run(data, SEEDS[2:3], start=starts[2])))


def test_buffers_reach_the_loss():
    target = GaussianRegression(torch.randn(5, 3, generator=seeded(5), dtype=torch.float64), 0.5)
    y = torch.ones(1, 5, dtype=torch.float64)
    solo = end(run(y, SEEDS[1:2], start=mean_field(target)))
    same(end(run(y, start=mean_field(target))), 1, solo, exactly=False)
    other = mean_field(GaussianRegression(target.features + 1, 0.5))
    with pytest.raises(ValueError, match="equal buffers"):
        run(y, (1, 2), start=[mean_field(target), other])


def test_a_diverged_member_is_reported_and_the_others_go_on(data):
    broken = model()
    with torch.no_grad():
        broken.W[0, 0] = 1e200
    columns = {"size": lambda state: state.each(lambda p: float(p["model.W"].norm()))}
    points = list(run(data, (1, 2), start=[model(), broken], probes=columns, checkpoints=(0, 1, 2, 20)))
    assert points[0].diverged == () and [found.seed for found in points[-1].diverged] == [2]
    (found,) = points[-1].diverged
    assert points[1].diverged == (found,) and found.step == 1 and found.value == math.inf
    assert math.isnan(points[-1].values["size"][1]) and math.isfinite(points[-1].values["size"][0])
    same(points[-1].state, 0, end(run(data, (1,))))


def test_divergence_is_dated_to_the_step_and_ends_the_run_when_it_is_general(data):
    losses = []
    settings = {"checkpoints": (0, 300, 600), "observe": lambda step: losses.append(step.losses)}
    schedule = constant(0.5)
    points = list(train(model(), pathwise, Objective(), data, sgd, schedule, 600, 4, (1, 2), **settings))
    assert [point.state.step for point in points] == [0, 300]
    for s, found in enumerate(points[-1].diverged):
        assert not losses[found.step - 1][s].isfinite() and losses[found.step - 2][s].isfinite()
        assert found.step > 2 and not math.isfinite(found.value)


class Clipped(torch.optim.SGD):
    """SGD after clipping: of all gradients together, or of each member's own."""

    def __init__(self, parameters, lr, by_member):
        super().__init__(parameters, lr=lr)
        self.by_member = by_member

    def step(self):
        gradients = [p.grad for p in self.param_groups[0]["params"]]
        if self.by_member:
            norms = sum(g.flatten(1).square().sum(1) for g in (g.reshape(len(g), -1) for g in gradients)).sqrt()
            for g in gradients:
                g.div_(norms.clamp(min=1).view(-1, *[1] * (g.ndim - 1)))
        else:
            nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1.0)
        super().step()


def test_clipping_by_the_global_norm_is_refused_in_a_fleet(data):
    with pytest.raises(ValueError, match="one member's gradient change another's step"):
        run(data, optimizer=partial(Clipped, by_member=False))
    solo = end(run(data, SEEDS[:1], optimizer=partial(Clipped, by_member=False)))
    fleet = end(run(data, optimizer=partial(Clipped, by_member=True)))
    torch.testing.assert_close(fleet.parameters["model.W"][0], solo.parameters["model.W"][0], rtol=1e-4, atol=1e-6)


def test_the_sampler_is_with_replacement_unless_named_otherwise(data):
    def most_seen(**options):
        seen = []
        list(run(data, (1,), steps=16, observe=lambda step: seen.append(step.indices.flatten()), **options))
        return int(torch.cat(seen).bincount().max())

    assert most_seen() > 1 and most_seen(sampler=with_replacement) > 1
    assert most_seen(sampler=epochwise) == 1


def test_geometric_steps():
    assert geometric(1) == (0, 1)
    steps = geometric(1000, 4)
    assert steps[0] == 0 and steps[-1] == 1000 and {1, 10, 100, 562} < set(steps)


def test_nothing_global_is_touched_and_nothing_printed(data, capsys):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    list(run(data))
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": ()}, "seeds must be distinct"),
        ({"seeds": (1, 1)}, "seeds must be distinct"),
        ({"seeds": (1, 1 + 2**40)}, "seeds must be distinct in their lowest 32 bits"),
        ({"seeds": (1, 2, 3), "start": [model()]}, "one per model"),
        ({"start": [model(), model(), model(), linear_vae(latents=3)]}, "same parameters"),
        ({"checkpoints": (0, 5)}, "increase from 0 to steps = 20"),
        ({"checkpoints": (1, 20)}, "increase from 0 to steps = 20"),
        ({"checkpoints": (0, 7, 7, 20)}, "increase from 0 to steps = 20"),
        ({"steps": 0}, "steps must be an integer"),
    ],
)
def test_bad_input_is_refused_before_training(options, message, data):
    with pytest.raises(ValueError, match=message):
        run(data, **options)


def test_data_that_the_model_cannot_take_is_refused(data):
    with pytest.raises(ValueError, match="x must be"):
        run(data[:, :5])


def interrupted(optimizer, **more):
    """Blocks of 12 draws; every third checkpoint falls between two of them."""
    x, objective = linear_gaussian(n=64, generator=seeded(0), dtype=torch.float64), Objective(samples=40, alpha=0)
    rule = OPTIMIZERS[optimizer]
    return train(model(), doubly_reparameterized, objective, x, rule, inverse_sqrt(0.01), 130, 64, SEEDS, **more)


def rows_of(checkpoints):
    return [row for checkpoint in checkpoints for row in checkpoint.rows()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fleet_goes_on_from_a_snapshot_as_if_it_had_not_stopped(name):
    kept: list[Snapshot] = []
    whole = rows_of(interrupted(name, keep=lambda take: kept.append(take())))
    assert [snapshot.step for snapshot in kept] == [12 * n for n in range(1, 11)]
    for snapshot in kept[::3]:
        rest = rows_of(interrupted(name, start=snapshot))
        assert repr(rest) == repr([row for row in whole if row["step"] >= snapshot.step])


def test_bytes_train_like_the_pixels_they_stand_for():
    stored = patches(32, dtype=torch.float64)[:40].mul(255).round().to(torch.uint8)
    net = mlp_vae((3, 32, 32), (8,), 2, dtype=torch.float64, generator=seeded(0))

    def value(state):
        return state.each(lambda parameters: bound(state.loss, state.data, 2, seeded(7), parameters))

    def rows(data):
        found = {"value": value}
        return rows_of(train(net, pathwise, Objective(), data, adam, inverse_sqrt(0.01), 5, 8, SEEDS, probes=found))

    assert repr(rows(stored)) == repr(rows(stored.double() / 255))
