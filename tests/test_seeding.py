"""Streams of random numbers for different uses differ, also where a generator keeps 32 bits of a seed only."""

from dataclasses import replace

import pytest
import torch

from vaebench.experiments.building import START, build
from vaebench.experiments.experiment import ComponentSpec, Experiment
from vaebench.experiments.limits import LARGEST_SEED, require_seeds
from vaebench.experiments.probes.measuring import each_member
from vaebench.gates.planning import Plan
from vaebench.gradients.estimators import pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.models import linear_vae
from vaebench.support.seeding import KEPT, derived_seed
from vaebench.training.records import State
from vaebench.training.schedules import inverse_sqrt

CPU = torch.device("cpu")
SEEDS = (0, 1, 2, 2**31 - 1)
PURPOSES = ("watched steps", "controls", "closest estimator", "pilot", "gradients", "values", "ledgers")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def drawn(generator):
    return tuple(torch.randn(4, generator=generator).tolist())


def test_torch_keeps_32_bits_of_a_seed_on_the_cpu():
    """Why an offset of 2^40 separates nothing, and 2^31 below it does."""
    assert drawn(seeded(5 + 2**40)) == drawn(seeded(5)) == drawn(seeded(5 + KEPT))
    assert drawn(seeded(5 + START)) != drawn(seeded(5))
    assert START == LARGEST_SEED and KEPT == 2 * LARGEST_SEED


def test_every_use_of_a_plans_seed_has_a_stream_of_its_own():
    plans = [Plan(100, 2, 800, seed) for seed in SEEDS]
    found = [drawn(plan.generator(CPU, purpose)) for plan in plans for purpose in PURPOSES]
    found += [drawn(seeded(next(plan.seeds(purpose)))) for plan in plans for purpose in PURPOSES]
    found += [drawn(seeded(seed)) for seed in SEEDS]
    assert len(set(found)) == len(found) == len(SEEDS) * (2 * len(PURPOSES) + 1)


def test_members_of_a_plan_have_distinct_streams():
    seeds = Plan(100, 2, 800, 7).seeds("run")
    found = [next(seeds) for _ in range(2**15)]  # two draws of them agree here, as in one run of nine
    assert len({seed % KEPT for seed in found}) == len(found)


def test_probes_share_no_stream_with_training_or_with_another_step():
    loss = Loss(linear_vae(dtype=torch.float64, generator=seeded(0)), pathwise, Objective())
    parameters = {f"model.{n}": p.detach().expand(len(SEEDS), *p.shape) for n, p in loss.model.named_parameters()}
    found = [drawn(seeded(seed)) for seed in SEEDS]
    for step in (0, 1, 2):
        state = State(step, parameters, loss, torch.zeros(2, 6), SEEDS)
        each_member(state, lambda _, generator: found.append(drawn(generator)) or 0.0)
    each_member(state, lambda _, generator: found.append(drawn(generator)) or 0.0, fixed=True)
    assert len(set(found)) == len(found) == 5 * len(SEEDS)


def raw(generator, dtype):
    return torch.randn(256, 6, generator=generator, dtype=dtype)


def test_an_experiments_data_are_not_the_noise_of_its_seeds():
    """Those of seed 0 were, number by number: both began the stream of seed 0."""
    named = ComponentSpec("tests.test_seeding:raw"), ComponentSpec("linear_vae")
    experiment = Experiment(*named, Objective(), "pathwise", ComponentSpec("sgd"), inverse_sqrt(0.01), 4, 8, SEEDS)
    rows = set(build(replace(experiment, dtype="float64")).train.flatten().tolist())
    for seed in SEEDS:
        assert not rows & set(torch.randn(1536, generator=seeded(seed), dtype=torch.float64).tolist())
    assert rows & set(torch.randn(1536, generator=seeded(derived_seed(0, "data")), dtype=torch.float64).tolist())


@pytest.mark.parametrize("seed", [2**31, 2**32, 2**40, -1])
def test_seeds_of_an_experiment_are_those_that_have_streams_of_their_own(seed):
    with pytest.raises(ValueError, match=rf"below 2\^31, got {seed}"):
        require_seeds((0, seed))


def test_derived_seeds_are_pinned():
    """Another hash would be another run of everything."""
    assert [derived_seed(0), derived_seed(0, "data"), derived_seed(2**40 + 3, "probe", 7), derived_seed(-1)] == [
        2968811710, 4108790173, 3157198070, 2458692877,
    ]  # fmt: skip
