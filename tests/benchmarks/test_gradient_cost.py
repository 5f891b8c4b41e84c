"""A small timing set: `pytest --benchmark-only`. The asv suites are the full one."""

import pytest
import torch

from benchmarks.common import batch, conv32, generator, mlp
from vaebench.gradients.estimators import ESTIMATORS, draw_noise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import count

PROBLEMS = {"mlp": mlp, "conv32": conv32}
ESTIMATORS_TIMED = ["pathwise", "doubly_reparameterized", "leave_one_out"]


@pytest.mark.parametrize("samples", [2, 10], ids="K={}".format)
@pytest.mark.parametrize("name", ESTIMATORS_TIMED)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_gradient(benchmark, problem, name, samples):
    model, data = PROBLEMS[problem]("cpu")
    x, objective = batch(data, 32), Objective(samples, alpha=0)
    noise = draw_noise(model, x, objective, generator())
    loss, parameters = Loss(model, ESTIMATORS[name], objective), list(model.parameters())
    benchmark.group = f"IWAE gradient, {problem}, B=32, K={samples}"
    cost = count(lambda: torch.autograd.grad(loss(x, noise), parameters))
    benchmark.extra_info.update(cost._asdict())
    grads = benchmark.pedantic(
        lambda: torch.autograd.grad(loss(x, noise), parameters), rounds=5, iterations=1, warmup_rounds=1
    )
    assert all(grad.isfinite().all() for grad in grads)
