"""Seconds of one member's step in a compiled fleet, beside a peer's loop over runs: small nets, ELBO, Adam.

A fleet draws its minibatches and records |grad|^2 at every step; the peer repeats one batch and records nothing.
Blocks of steps in turn, one core, float32; a point's ratio is the median of the rounds' ratios.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import tables
from benchmarks.peers.cost import LR, contestants, one_core, pinned_settings
from benchmarks.peers.steps import with_torchs_layers
from vaebench.data import digits, linear_gaussian
from vaebench.gradients.estimators import analytic_kl
from vaebench.gradients.objectives import Objective
from vaebench.models import VAE, gaussian, mlp_vae
from vaebench.models.activations import relu
from vaebench.training.compilation import compiled
from vaebench.training.fleet import train
from vaebench.training.optimizers import fused_adam
from vaebench.training.schedules import constant

MEMBERS, B, ROUNDS, STEPS, WARM = 32, 32, 15, 50, 5
Problem = tuple[VAE, Tensor]


def linear() -> Problem:
    """A linear VAE: 50 features, 5 latents, unit-variance Gaussian."""
    generator = torch.Generator().manual_seed(0)
    return mlp_vae((50,), (), 5, relu(), gaussian(1.0), generator), linear_gaussian(512, 50, 5, generator=generator)


def small() -> Problem:
    """The 64-50-50-8 perceptron on binary digits."""
    return mlp_vae((8, 8), (50, 50), 8, generator=torch.Generator().manual_seed(0)), digits().round()


NETS: dict[str, Callable[[], Problem]] = {"linear 50-5": linear, "64-50-50-8": small}


def fleet_blocks(model: VAE, data: Tensor, members: int) -> Iterator[object]:
    """A fleet's run, a block of steps each time it is asked; warm once it has been asked twice."""
    marks = [0, WARM, *range(WARM + STEPS, WARM + (ROUNDS + 1) * STEPS, STEPS)]
    schedule, seeds = constant(LR), range(members)
    return train(
        model, analytic_kl, Objective(), data, fused_adam, schedule, marks[-1], B, seeds, checkpoints=marks,
        compiler=compiled,
    )  # fmt: skip


def measure(net: str, peer: str, members: int = MEMBERS) -> dict[str, object]:
    """One row of the table."""
    (model, data), (contestant, version) = NETS[net](), contestants()[peer]
    blocks, x = fleet_blocks(model, data, members), data[:B].contiguous()
    step = contestant.step(with_torchs_layers(deepcopy(model)), Objective(), LR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        next(blocks), next(blocks)
        for _ in range(WARM):
            step(x)
        times = []
        for _ in range(ROUNDS):
            start = perf_counter()
            next(blocks)
            middle = perf_counter()
            for _ in range(STEPS):
                step(x)
            times.append(((middle - start) / STEPS / members, (perf_counter() - middle) / STEPS))
    ours, theirs = np.array(times).T
    low, ratio, high = np.quantile(theirs / ours, [0.25, 0.5, 0.75])
    numbers = {"ours_s": np.median(ours), "peer_s": np.median(theirs), "ratio": ratio, "low": low, "high": high}
    return key(net, peer, version, members) | {name: f"{number:.6g}" for name, number in numbers.items()}


def key(net: str, peer: str, version: str, members: int = MEMBERS) -> dict[str, object]:
    """What a row must have in common with a point to stand for it."""
    return {"net": net, "B": B, "members": members, "peer": peer, "version": version} | pinned_settings()


def run(path: Path, say: Callable[[str], None]) -> None:
    """Measure every net beside every peer that has the ELBO, unless the table holds it at these settings."""
    one_core()
    peers = {name: version for name, (contestant, version) in contestants().items() if "ELBO" in contestant.bounds}
    for net in NETS:
        for name, version in peers.items():
            row_key = key(net, name, version)
            if tables.has(tables.read(path), row_key):
                say(f"fleet of {net} beside {name}: known")
                continue
            row = measure(net, name)
            tables.replace(path, [row], row_key)
            member, ratio = 1e6 * float(str(row["ours_s"])), float(str(row["ratio"]))
            say(f"fleet of {net} beside {name}: {member:.3g} us a member's step, the peer takes {ratio:.1f} times that")
