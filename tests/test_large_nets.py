"""Gates of nets of which only a few gradients are held: what is kept, what is left out, and that both ways agree."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from vaebench.gates import run_gates
from vaebench.gates.at_rest import Draws, gradients_at_rest, moments_at_rest, moments_of
from vaebench.gates.means import gradient_mean, gradient_mean_two_sample
from vaebench.gates.planning import Plan
from vaebench.gates.subject import Subject
from vaebench.gradients.estimators import pathwise
from vaebench.gradients.objectives import Objective
from vaebench.measures.moments import CHUNK, gather
from vaebench.measures.probes import gradient_variance
from vaebench.models import linear_vae, mlp_vae
from vaebench.training.fleet import train
from vaebench.training.optimizers import sgd
from vaebench.training.records import Step


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seeds():
    return iter(range(1, 10**6))


def test_how_many_gradients_are_held_by_hand():
    """4,000 of up to 1,048 numbers are 2^22; of 10,000 numbers, 2^25 are 3,355, in 160ths 3,200; at least 800."""
    plan = Plan(1000, 2, 4000, 0)
    assert plan.held(1048) is plan
    assert [plan.held(size).replicates for size in (1049, 10_000, 30_000, 136_564)] == [4000, 3200, 960, 800]
    assert [plan.held(size).dense(size) for size in (1048, 30_000, 41_943, 41_944)] == [True, True, True, False]


def test_moments_of_a_parameter_that_is_taken_in_pieces_are_those_of_the_whole():
    """Two pieces and a rest of the columns of 16 groups' sums of 2 gradients each, by hand."""
    columns = 2 * (CHUNK // 16) + 3
    g = torch.randn(32, columns, generator=seeded(0))
    found = gather([{"W": g[:20]}, {"W": g[20:]}], 32, groups=16)
    sums = g.double().view(16, 2, columns).sum(1)
    assert torch.allclose(found.along["W"], sums @ sums.sum(0), rtol=1e-5)
    assert torch.allclose(found.own["W"], sums.square().sum(1), rtol=1e-6)
    assert torch.allclose(found.gram["W"], sums @ sums.T / 4, rtol=1e-5, atol=1e-3)
    assert torch.allclose(found.mean["W"], g.mean(0), atol=1e-6)


@pytest.mark.parametrize(("size", "groups"), [(1, 800), (5242, 800), (5243, 800), (136_564, 100), (10**6, 50)])
def test_moments_have_as_many_groups_as_may_be_held(size, groups):
    """2^24 numbers are 122 sums of 136,564 numbers, and 100 is the largest divisor of 800 below; 64 may always be."""
    assert moments_of({"p": torch.zeros(1, size)}, 800).groups == groups


def test_few_members_take_many_steps_where_the_net_is_large():
    """Of 1,002,000 numbers 16 members are 2^24: 800 gradients are 50 steps, not 16 of 50 members."""
    asked = []

    def trainer(model, estimator, objective, data, rule, schedule, steps, size, members, *, observe, **options):
        asked.append((steps, len(members)))
        gradients = {"model.weight": torch.ones(len(members), 1)}
        for n in range(1, steps + 1):
            observe(Step(n, 0.0, {}, {}, gradients, torch.zeros(1), torch.zeros(1), torch.zeros(1)))
        return iter(())

    subject = Subject(nn.Linear(1001, 1001), pathwise, Objective(1), torch.zeros(4, 1001), 2, sgd, trainer=trainer)
    moments = moments_at_rest(subject, 800, seeds())
    small = replace(subject, model=nn.Linear(10, 10))
    moments_at_rest(small, 800, seeds())
    assert asked == [(50, 16), (16, 50)]
    assert moments.count == 800 and gradient_variance(moments).value == 0


def test_moments_of_gradients_that_are_not_held_are_those_of_gradients_that_are():
    data = torch.randn(40, 3, generator=seeded(1), dtype=torch.float64)
    model = linear_vae(3, 2, generator=seeded(0), dtype=torch.float64)
    subject = Subject(model, pathwise, Objective(2), data, 4, sgd)
    held = gradients_at_rest(subject, 160, seeds()).moments()
    streamed = moments_at_rest(subject, 160, seeds())
    assert gradient_variance(held) == gradient_variance(streamed)
    other = moments_at_rest(subject, 160, iter(range(10**6, 2 * 10**6)))
    assert gradient_variance(held) != gradient_variance(other)


def test_a_large_net_is_judged_without_holding_its_gradients_and_a_fault_of_it_is_found():
    """41,944 numbers or more: no gradient mean of its own, a pair at equal noise; a wrong scale of 2 % is found."""
    data = torch.rand(64, 64, generator=seeded(1), dtype=torch.float64)
    model = mlp_vae((64,), hidden=(150,), latents=50, generator=seeded(2), dtype=torch.float64)
    assert sum(p.numel() for p in model.parameters()) == 42_164

    def scaled(model, x, noise, objective):
        return 1.02 * pathwise(model, x, noise, objective)

    outcomes = []
    for estimator in (pathwise, scaled):
        said = []
        given = {"steps": 100, "members": 2, "replicates": 960, "batch_size": 8, "law": "pathwise"}
        found = run_gates(model, estimator, Objective(1), data, progress=said.append, **given)
        outcomes.append({verdict.gate: verdict.outcome for verdict in found})
        assert any(f"{stage}".startswith("left out: gradient mean: 800 gradients of 42,164 numbers") for stage in said)
        fewer = "left out: 160 of 960 gradients at each point: no more than 800 of 42,164 numbers are drawn"
        assert fewer in map(str, said)
    right, wrong = outcomes
    assert "gradient mean" not in right and right["gradient mean, paired"] == "pass"
    assert {"variance in B", "independent draws", "variance in K"} <= right.keys() and "fail" not in right.values()
    assert wrong["gradient mean, paired"] == "fail"


@pytest.mark.parametrize("told", [0, 3])
def test_a_trainer_that_does_not_tell_of_every_step_is_refused_in_one_sentence(told):
    """Of 160 gradients, 16 steps of 10 members, those of three are 30."""

    def deaf(*given, observe, **options):
        return train(*given, observe=lambda step: observe(step) if step.number <= told else None, **options)

    data = torch.randn(40, 3, generator=seeded(1), dtype=torch.float64)
    model = linear_vae(3, 2, generator=seeded(0), dtype=torch.float64)
    subject = Subject(model, pathwise, Objective(2), data, 4, sgd, trainer=deaf)
    message = f"The trainer must call observe .* of every step: 160 were asked for, {10 * told} came"
    for draw in (gradients_at_rest, moments_at_rest):
        with pytest.raises(ValueError, match=message):
            draw(subject, 160, seeds())


def test_gradients_at_one_point_are_let_go_of_before_those_at_the_next_are_drawn():
    """Beside exact and beside trusted gradients, of many parameters and of few; the verdict is that of all at once."""
    generator = torch.Generator().manual_seed(4)
    made = [torch.randn(800, 90, generator=generator, dtype=torch.float64) for _ in range(6)]

    def alone(parts, alive):
        for part in parts:
            one = Draws({"a": part})
            alive.append(weakref.ref(one))
            yield one
            del one
            assert not any(ref() for ref in alive)

    for width in (90, 2):
        mine, theirs = ([part[:, :width] for part in parts] for parts in (made[:3], made[3:]))
        exact, places, refs = [torch.zeros(width, dtype=torch.float64)] * 3, ["a", "b", "c"], [[], [], []]
        whole = [Draws({"a": part}) for part in mine], [Draws({"a": part}) for part in theirs]
        seeds = [torch.Generator().manual_seed(5) for _ in range(4)]
        known = gradient_mean(places, whole[0], exact, seeds[0])
        assert gradient_mean(places, alone(mine, refs[0]), exact, seeds[1]) == known
        known = gradient_mean_two_sample(places, *whole, seeds[2])
        found = gradient_mean_two_sample(places, alone(mine, refs[1]), alone(theirs, refs[2]), seeds[3])
        assert found == known and list(map(len, refs)) == [3, 3, 3]


def test_nothing_moves_at_rest():
    """Without noise, and with one row over and over, every one of the gradients is the same to the last bit."""
    data = torch.randn(1, 3, generator=seeded(1), dtype=torch.float64).expand(8, -1).clone()
    model = linear_vae(3, 2, generator=seeded(0), dtype=torch.float64)

    def still(model, x, noise, objective):
        return pathwise(model, x, 0 * noise, objective)

    flat = gradients_at_rest(Subject(model, still, Objective(), data, 4, sgd), 64, seeds()).flat
    assert flat.abs().max() > 0 and torch.equal(flat, flat[:1].expand_as(flat))
