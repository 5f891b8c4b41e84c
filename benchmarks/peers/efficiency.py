"""Cost and accuracy as one number: seconds of a gradient times the trace variance of its encoder part.

Of two estimators of one bound, the one with the smaller product reaches a given error of the averaged gradient in
less time. The net is the convolutional one, IWAE bound, K = 5, gradients taken in turn on one core.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import tables
from benchmarks.peers.cost import ROUNDS, SECONDS, cpu, one_core, problem
from benchmarks.peers.steps import ours
from vaebench.gradients.estimators import doubly_reparameterized, draw_noise, pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import interleaved_seconds
from vaebench.measures.moments import conditional, gradient_moments, parameter_groups
from vaebench.measures.probes import gradient_variance
from vaebench.models import VAE

NET, B, K = "conv32", 32, 5
REPLICATES = 64
ROWS, STEPS = 2048, 200  # of data, and of Adam on minibatches of them


def gradient(loss: Loss) -> Callable[[Tensor], object]:
    """One gradient, noise included."""
    parameters = list(loss.parameters())
    return lambda x: torch.autograd.grad(loss(x, draw_noise(loss.model, x, loss.objective)), parameters)


def run(path: Path, say: Callable[[str], None], seconds: float = SECONDS, replicates: int = REPLICATES) -> None:
    """Measure both estimators before and after training, unless the table holds them at these settings."""
    key = {"net": NET, "B": B, "K": K, "replicates": replicates, "torch": torch.__version__, "cpu": cpu()}
    if tables.has(tables.read(path), key):
        say("time x variance: known")
        return
    one_core()
    model, data = problem(NET, ROWS)
    x = data[:: ROWS // B]
    step, rows = ours(model, Objective(K, 0.0), lr=1e-3), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for steps in (0, STEPS):
            for _ in range(steps):
                step(data[torch.randint(len(data), (B,))])
            rows += [key | {"steps": steps} | row for row in compare(model, x, seconds, replicates)]
            say(f"time x variance after {steps} steps: {', '.join(row['product'] for row in rows[-2:])} s nats^2")
    tables.replace(path, rows, key)


def compare(model: VAE, x: Tensor, seconds: float, replicates: int) -> list[dict[str, str]]:
    """Both estimators at the model's parameters, a row each."""
    losses = [Loss(model, estimator, Objective(K, 0.0)) for estimator in (pathwise, doubly_reparameterized)]
    runs = [partial(gradient(loss), x) for loss in losses]
    times = np.median(interleaved_seconds(runs, perf_counter, seconds, *ROUNDS), 0)
    rows = []
    for loss, time in zip(losses, times, strict=True):
        draws = conditional(loss, x, torch.Generator().manual_seed(0))
        moments = gradient_moments(loss, draws, replicates)
        variance = gradient_variance(moments, parameter_groups(loss, x)["phi"])
        numbers = {"seconds": time, "variance": variance.value, "product": time * variance.value}
        numbers["product error"] = time * variance.error
        rows.append({"estimator": loss.estimator.__name__} | {name: f"{n:.4g}" for name, n in numbers.items()})
    return rows
