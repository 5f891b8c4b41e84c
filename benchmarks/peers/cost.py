"""Seconds of one training step, ours and a peer's in turn: forward, backward, Adam, on the same net and batch.

One core, float32, binary data. ELBO at K = 1, IWAE bound above. The peers' nets are of torch's own layers, the same
functions of the same parameters. Rounds A B, B A, A B, ... fill a fixed time; a point's ratio is the median of the
rounds' ratios, and the spread their quartiles.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.machine import describe
from benchmarks.harness.pinned import VARIABLES, pinned
from benchmarks.peers import tables
from benchmarks.peers.cases import installed
from benchmarks.peers.steps import OURS, PLAIN, Contestant, Step, with_torchs_layers
from vaebench.data import digits, patches
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import interleaved_seconds
from vaebench.models import VAE, conv_vae, mlp_vae
from vaebench.models.activations import relu, soft_clip

NETS = ("small", "mlp", "conv32", "conv32_soft_clip")
BATCHES = (32, 128, 256)
SMALLEST = {"mlp": (20,)}  # Burda et al. (2016), and where a step is mostly overhead
SAMPLES = (1, 5, 10, 50)
QUICK = {("small", 32, 1), ("small", 32, 5), ("mlp", 32, 5), ("conv32", 32, 5)}
LONGEST = {"numpyro": 1280}  # decoded rows of convolutional nets; there its step takes half a minute
LR = 1e-4
ROUNDS = (3, 300)
SECONDS = 3.0  # of rounds at one point, unless the fewest take longer


@dataclass(frozen=True)
class Point:
    """What is timed: a net, a batch size, a number of samples and a peer."""

    net: str
    B: int
    K: int
    peer: str

    @property
    def bound(self) -> str:
        return "ELBO" if self.K == 1 else "IWAE"

    @property
    def objective(self) -> Objective:
        return Objective(self.K, 1.0 if self.K == 1 else 0.0)


def problem(net: str, size: int) -> tuple[VAE, Tensor]:
    """A net with the same parameters every time, and a batch of binary pixels spread evenly over the data."""
    generator = torch.Generator().manual_seed(0)
    if net.startswith("conv32"):
        activations = soft_clip(5.0) if net.endswith("soft_clip") else relu()
        model, data = conv_vae(32, activations=activations, generator=generator), patches(32)
    elif net == "mlp":
        model, data = mlp_vae((28, 28), (200, 200), 50, generator=generator), patches(32).mean(1)[:, 2:30, 2:30]
    else:
        model, data = mlp_vae((8, 8), (50, 50), 8, generator=generator), digits()
    rows = torch.linspace(0, len(data) - 1, size).long()
    return model, data[rows].round()


def contestants() -> dict[str, tuple[Contestant, str]]:
    """Everyone but ourselves by name, each with a version."""
    found = {PLAIN.name: (PLAIN, torch.__version__)}
    for module in installed().values():
        found |= {peer.name: (peer, module.VERSION) for peer in module.CONTESTANTS}
    return found


def points(quick: bool) -> Iterator[Point]:
    """The grid, cheapest first; a peer appears where it has the bound."""
    peers = contestants()
    grid = [(net, size, samples) for net in NETS for size in SMALLEST.get(net, ()) + BATCHES for samples in SAMPLES]
    for net, size, samples in sorted(grid, key=lambda at: (NETS.index(at[0]), at[1] * at[2])):
        for name, (peer, _) in peers.items():
            point = Point(net, size, samples, name)
            allowed = point.bound in peer.bounds and samples in (peer.samples or SAMPLES)
            longest = LONGEST.get(name.partition(" ")[0], math.inf) if net.startswith("conv") else math.inf
            if allowed and size * samples <= longest and (not quick or (net, size, samples) in QUICK):
                yield point


def one_core() -> None:
    """Keep this process, threads of every library included, on one core."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


@lru_cache(maxsize=1)
def our_step(net: str, size: int, objective: Objective) -> tuple[VAE, Step]:
    """Ours, compiled once for all peers at a point."""
    model, _ = problem(net, size)
    return model, OURS.step(model, objective, LR)


def measure(point: Point, seconds: float = SECONDS) -> dict[str, object]:
    """One row of the table."""
    peer, version = contestants()[point.peer]
    model, x = problem(point.net, point.B)
    mine, ours = our_step(point.net, point.B, point.objective)
    mine.load_state_dict(model.state_dict())  # both begin at the same parameters
    theirs = peer.step(with_torchs_layers(model), point.objective, LR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        times = interleaved_seconds([partial(ours, x), partial(theirs, x)], perf_counter, seconds, *ROUNDS)
    low, ratio, high = np.quantile(times[:, 1] / times[:, 0], [0.25, 0.5, 0.75])
    medians = np.median(times, 0)
    numbers = {"ours_s": medians[0], "peer_s": medians[1], "ratio": ratio, "ratio_low": low, "ratio_high": high}
    return settings(point, version) | {
        "bound": point.bound,
        **{name: f"{number:.6g}" for name, number in numbers.items()},
        "rounds": len(times),
    }


def settings(point: Point, version: str) -> dict[str, object]:
    """What a row must have in common with a point to stand for it."""
    return asdict(point) | {"version": version} | pinned_settings()


def pinned_settings() -> dict[str, object]:
    """What every time depends on: versions, the processor, threads, cores and the allocator's settings."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kept = {name: pinned()[name] for name in ("torch threads", *VARIABLES)} | {"cores": cores}
    joined = "; ".join(f"{name} {value}" for name, value in kept.items())
    return {"torch": torch.__version__, "cpu": cpu(), "pinned": joined}


def cpu() -> str:
    """The processor, with what tells it from others of its name, and the number of its cores."""
    return f"{describe()['cpu']}, {os.cpu_count()} cores"


def run(path: Path, quick: bool, say: Callable[[str], None]) -> None:
    """Time every point that the table does not hold at these settings, one row each."""
    one_core()
    todo, versions = list(points(quick)), {name: version for name, (_, version) in contestants().items()}
    for number, point in enumerate(todo, 1):
        where = f"[{number}/{len(todo)}] {point.net} B={point.B} K={point.K} {point.peer}"
        key = settings(point, versions[point.peer])
        if tables.has(tables.read(path), key):
            say(f"{where}: known")
            continue
        row = measure(point)
        tables.replace(path, [row], key)
        say(f"{where}: {1e3 * float(str(row['peer_s'])):.3g} ms, {float(str(row['ratio'])):.2f} of ours")
