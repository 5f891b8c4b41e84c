"""What a step costs and what its gradient is worth: FLOPs, seconds, variance, and seconds times variance.

Steps of a bound's estimators are taken in turn, noise, gradient and Adam, and timed by the processor's clock, which
stands still while another process has the core. The variance is the trace of the covariance of the encoder's
gradient, given one batch, on a net that was trained for a while.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from time import process_time

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.arms import BATCH, BOUNDS, SCHEDULE, SEEDS, Arm, arms_of, data, key, net
from benchmarks.harness.pinned import pinned
from benchmarks.peers import tables
from benchmarks.peers.cost import cpu
from vaebench.experiments.running import commit
from vaebench.gradients.estimators import doubly_reparameterized, draw_noise
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import count, interleaved_seconds
from vaebench.measures.moments import conditional, fresh, gradient_moments, parameter_groups
from vaebench.measures.probes import gradient_variance
from vaebench.models import VAE
from vaebench.support.statistics import Estimate
from vaebench.training.fleet import train
from vaebench.training.optimizers import adam

STAGES = (100, 3000)  # steps of training before the variance is taken
REPLICATES = 256
SECONDS, ROUNDS = 6.0, (10, 400)


def trained(objective: Objective, stages: Sequence[int]) -> Iterator[VAE]:
    """The first seed's net after so many steps of the doubly reparameterized gradient."""
    estimator, marks = doubly_reparameterized, (0, *stages)
    model, seeds = net(SEEDS[0]), SEEDS[:1]
    run = train(model, estimator, objective, data(), adam, SCHEDULE, marks[-1], BATCH, seeds, checkpoints=marks)
    for checkpoint in islice(run, 1, None):
        state = checkpoint.state.member(0)
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items()})
        yield model


def step_of(arm: Arm, model: VAE, x: Tensor) -> Callable[[], None]:
    """One step of Adam on a copy of the net, its noise included."""
    loss = arm.loss(deepcopy(model))
    optimizer, generator = adam(loss.parameters(), 1e-6), torch.Generator().manual_seed(0)

    def step() -> None:
        optimizer.zero_grad()
        loss(x, draw_noise(model, x, arm.objective, generator)).backward()
        optimizer.step()

    return step


def variances(arm: Arm, model: VAE, x: Tensor, replicates: int) -> dict[str, Estimate]:
    """Of the encoder's gradient given a batch, and of a training gradient: every parameter, fresh minibatch."""
    loss, generator = arm.loss(model), torch.Generator().manual_seed(0)
    given, free = conditional(loss, x, generator), fresh(loss, data(), BATCH, generator)
    encoder = gradient_variance(gradient_moments(loss, given, replicates), parameter_groups(loss, x)["phi"])
    return {"encoder": encoder, "training": gradient_variance(gradient_moments(loss, free, replicates))}


def gflop(arm: Arm, model: VAE, x: Tensor) -> float:
    """Of one gradient, counted exactly."""
    loss, parameters = arm.loss(model), list(model.parameters())
    noise = draw_noise(model, x, arm.objective, torch.Generator().manual_seed(0))
    return count(lambda: torch.autograd.grad(loss(x, noise), parameters)).flops / 1e9


def measure(objective: Objective, seconds: float = SECONDS, replicates: int = REPLICATES) -> list[dict[str, object]]:
    """A row for each estimator of a bound."""
    x, chosen = data()[torch.linspace(0, len(data()) - 1, BATCH).long()], arms_of(objective)
    steps = [step_of(arm, net(SEEDS[0]), x) for arm in chosen]
    times = interleaved_seconds(steps, process_time, seconds, *ROUNDS)
    ratios = np.quantile(times / times[:, :1], [0.25, 0.5, 0.75], axis=0)
    found = []
    for arm, own, ratio in zip(chosen, times.T, ratios.T, strict=True):
        numbers = {"gflop": gflop(arm, net(SEEDS[0]), x), "seconds": float(np.median(own))}
        numbers["seconds_error"] = 1.2533 * float(own.std(ddof=1)) / len(own) ** 0.5  # of a median, if normal
        found.append(numbers | dict(zip(("ratio_low", "ratio", "ratio_high"), ratio, strict=True)))
    for stage, model in zip(STAGES, trained(objective, STAGES), strict=True):
        for arm, numbers in zip(chosen, found, strict=True):
            for name, (value, error) in variances(arm, model, x, replicates).items():
                numbers |= {f"{name}_{stage}": value, f"{name}_{stage}_error": error}
            product, (value, error) = numbers["seconds"], (numbers[f"encoder_{stage}{end}"] for end in ("", "_error"))
            product *= value
            relative = np.hypot(error / value, numbers["seconds_error"] / numbers["seconds"])
            numbers |= {f"product_{stage}": product, f"product_{stage}_error": product * float(relative)}
    measured = {"cpu": cpu(), "rounds": len(times)} | pinned()
    return [
        key(arm) | measured | {name: f"{value:.4g}" for name, value in numbers.items()}
        for arm, numbers in zip(chosen, found, strict=True)
    ]


def run(path: Path, say: Callable[[str], None], seconds: float = SECONDS, replicates: int = REPLICATES) -> None:
    """Measure every bound that the table does not hold for this machine, all of its estimators at once."""
    made = {"commit": (commit() or "unknown")[:7]}
    for objective in BOUNDS:
        whose = [key(arm) | {"cpu": cpu()} for arm in arms_of(objective)]
        if all(tables.has(tables.read(path), one) for one in whose):
            say(f"steps, {objective.name}: known")
            continue
        for row, one in zip(measure(objective, seconds, replicates), whose, strict=True):
            tables.replace(path, [row | made], one)
        say(f"steps, {objective.name}: measured")
