"""The probe of g'Hg, many draws at once, against one draw after the other and torch's own double backward."""

import math

import pytest
import torch

from vaebench.experiments.building import build
from vaebench.experiments.presets import preset
from vaebench.experiments.probes.landscape import DRAWS, TOGETHER, curvature
from vaebench.experiments.probes.measuring import Setting
from vaebench.gradients import Loss, own_parameters, pathwise
from vaebench.measures.moments import fresh
from vaebench.support.seeding import derived_seed
from vaebench.training.records import State


def test_curvature_along_gradients_is_the_mean_over_draws_made_one_by_one():
    experiment = preset("optimizers", "smoke").arms[0].experiment
    problem = build(experiment)
    setting = Setting(experiment, problem, (0, experiment.steps))
    loss, smooth = setting.loss(), setting.loss(pathwise)
    stacked = {name: torch.stack([0.5 * p, p]) for name, p in own_parameters(loss).items()}
    state = State(0, stacked, loss, problem.train, experiment.seeds[:2])
    found = curvature(setting)["gradient_curvature"](state)
    assert DRAWS * experiment.measures.rows * problem.train[0].numel() < TOGETHER  # all at once
    for member, seed in enumerate(state.seeds):
        assert found[member].tolist() == pytest.approx(one_by_one(loss, smooth, state, member, seed, experiment))


def one_by_one(loss: Loss, smooth: Loss, state: State, member: int, seed: int, experiment) -> list[float]:
    generator = torch.Generator().manual_seed(derived_seed(seed, "probe", state.step + 1))
    draws = fresh(loss, state.data, experiment.batch_size, generator)
    leaves = dict(loss.named_parameters())
    with torch.no_grad():
        for name, p in leaves.items():
            p.copy_(state.parameters[name][member])
    values = []
    for _ in range(DRAWS):
        rows, noise = (part[0] for part in fresh(loss, state.data, experiment.measures.rows, generator).take(1))
        x, own = (part[0] for part in draws.take(1))
        g = torch.autograd.grad(loss(x, own), list(leaves.values()))
        slope = torch.autograd.grad(smooth(rows, noise), list(leaves.values()), create_graph=True)
        along = torch.stack([(a * b).sum() for a, b in zip(slope, g, strict=True)]).sum()
        curved = torch.autograd.grad(along, list(leaves.values()))
        values.append(float(sum((a * b).sum() for a, b in zip(curved, g, strict=True))))
    taken = torch.tensor(values, dtype=torch.float64)
    return [float(taken.mean()), float(taken.std()) / math.sqrt(DRAWS)]
