"""What is measured: training steps, fleets, host reads and peak memory. Each point yields rows, a dict each."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor

from benchmarks.cuda import variants
from benchmarks.cuda.problems import MODELS, images, problem
from benchmarks.cuda.variants import COMPILED, EAGER, QUICK, Step, Variant
from vaebench.gradients.estimators import pathwise
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.memory import chunked, gradient_and_value, micro_batched
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import clock
from vaebench.training.compilation import compiled
from vaebench.training.fleet import train
from vaebench.training.optimizers import adam
from vaebench.training.schedules import constant
from vaebench.training.steps import Compile, eager, squared_norms

Row = dict[str, Any]
STEP_GOAL, FLEET_GOAL, NORM_GOAL = 3.0, 1 / 3, 0.03


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `seconds` is when points that have not begun are left out."""

    batch: int = 256
    samples: tuple[int, ...] = (1, 5, 10, 50)
    rounds: int = 11
    block: float = 0.02
    members: int = 64
    fleet_steps: int = 10
    many: int = 5000
    seconds: float = 400


TINY = Sizes(batch=4, samples=(1, 2), rounds=2, block=0.0, members=2, fleet_steps=2, many=20, seconds=120)


@contextmanager
def recorded(row: Row) -> Iterator[None]:
    """An error becomes the row's reason, and what it held on the device is given back."""
    try:
        yield
    except Exception as error:  # whatever a variant meets, the others are measured
        row["reason"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:300]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def steps(model: str, samples: int, sizes: Sizes, device: str, chosen: tuple[Variant, ...]) -> list[Row]:
    """Seconds of a step by every variant, in turn with eager float32; first, its gradient is checked."""
    loss, x, noise = problem(model, samples, sizes.batch, device)
    start = [p.detach().clone() for p in loss.parameters()]
    exact = gradient(loss, x, noise)
    rows, ready = [], []
    for variant in chosen:
        row: Row = {"what": "step", "model": model, "K": samples, "B": sizes.batch, "variant": variant.name}
        rows.append(row)
        with recorded(row):
            step = variants.make(variant, loss, x, noise)
            errors = variants.gradient_errors(step, start, exact)
            row["gradient_error"], row["allowed"] = errors, variant.allowed
            row["right"] = max(errors.values()) <= variant.allowed
            ready.append((row, step))
    failure: Row = {}
    with recorded(failure):
        race(ready, sizes, device)
    for row, _ in ready:
        row |= failure
    return rows


def gradient(loss: Loss, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """The gradient in float64."""
    dtype = next(loss.parameters()).dtype
    loss.double()
    names, tensors = zip(*loss.named_parameters(), strict=True)
    found = torch.autograd.grad(loss(x.double(), noise.double()), tensors)
    loss.to(dtype)
    return dict(zip(names, found, strict=True))


def race(ready: list[tuple[Row, Step]], sizes: Sizes, device: str) -> None:
    """Blocks of steps, A B C A B C ...; the ratio is of each round's eager block to its own."""
    read = clock(device)

    def block(step: Step, number: int) -> float:
        with variants.precision(step.variant):
            begin = read()
            for _ in range(number):
                step.run()
            return (read() - begin) / number

    for _, step in ready:
        block(step, 1)  # torch.compile compiles again what was reset for another variant
    numbers = [max(1, round(sizes.block / block(step, 3))) for _, step in ready]
    found: list[list[float]] = [[] for _ in ready]
    for _ in range(sizes.rounds):
        for times, (_, step), number in zip(found, ready, numbers, strict=True):
            times.append(block(step, number))
    eager = next((t for t, (_, step) in zip(found, ready, strict=True) if step.variant == EAGER), None)
    for times, (row, _) in zip(found, ready, strict=True):
        row["seconds"] = spread(times)
        if eager:
            row["speedup"] = spread([a / b for a, b in zip(eager, times, strict=True)])
            row["goal"] = STEP_GOAL
            row["met"] = row["right"] and row["speedup"]["median"] >= STEP_GOAL


def spread(values: list[float]) -> dict[str, float]:
    """Quartiles."""
    low, median, high = quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def fleets(batch: int, sizes: Sizes, device: str, compiler: Compile = eager) -> list[Row]:
    """Members at once against one by one, eager: seconds of one step of one member, setting up aside."""
    loss, _, _ = problem("conv32", 1, 1, device)
    data, read = images((512, 3, 32, 32), device), clock(device)

    def seconds(seeds: range, compiler: Compile = eager) -> float:
        marks = (0, 2, 2 + sizes.fleet_steps)
        run = train(
            loss.model, pathwise, Objective(), data, adam, constant(1e-4), marks[-1], batch, seeds, checkpoints=marks,
            compiler=compiler,
        )  # fmt: skip
        next(run), next(run)
        begin = read()
        next(run)
        return read() - begin

    place = {"model": "conv32", "K": 1, "B": batch, "members": sizes.members}
    row: Row = {
        "what": "fleet",
        **place,
        "variant": "eager" if compiler is eager else "compiled",
        "goal": FLEET_GOAL,
    }
    with recorded(row):
        ratios = []
        for _ in range(2):
            together = seconds(range(sizes.members), compiler)
            alone = sum(seconds(range(s, s + 1)) for s in range(sizes.members))
            ratios.append(together / alone)
            row["seconds"] = {"fleet": together, "one_by_one": alone}
        row["ratio"] = max(ratios)
        row["met"] = row["ratio"] <= FLEET_GOAL
    return [row]


def norms(sizes: Sizes, device: str) -> list[Row]:
    """What recording |grad|^2 adds to a step of a single run, as a share of it."""
    loss, x, noise = problem("conv32", 1, sizes.batch, device)
    row: Row = {"what": "recording |grad|^2", "model": "conv32", "K": 1, "B": sizes.batch, "goal": NORM_GOAL}
    with recorded(row):
        step, read = variants.make(EAGER, loss, x, noise), clock(device)
        found = {name: p.grad for name, p in step.loss.named_parameters()}
        stacked = {name: g.unsqueeze(0) for name, g in found.items() if g is not None}

        def timed(work: Callable[[], object]) -> float:
            begin = read()
            for _ in range(10):
                work()
            return (read() - begin) / 10

        pairs = [(timed(lambda: squared_norms(stacked)), timed(step.run)) for _ in range(1 + sizes.rounds)][1:]
        row["share"] = spread([norm / whole for norm, whole in pairs])
        row["met"] = row["share"]["median"] <= NORM_GOAL
    return [row]


def host_reads(sizes: Sizes, device: str) -> list[Row]:
    """Steps of a fleet between checkpoints, under torch's check that the host waits for nothing."""
    loss, _, _ = problem("conv32", 1, 1, device)
    data, last = images((64, 3, 32, 32), device), 2 + sizes.fleet_steps
    row: Row = {"what": "host synchronisations", "model": "conv32", "steps": sizes.fleet_steps, "goal": 0}

    def watched(number: int) -> float:
        if data.is_cuda:
            torch.cuda.set_sync_debug_mode("error" if 2 < number < last else "default")
        return 1e-4

    with recorded(row):
        if not data.is_cuda:
            raise RuntimeError("torch checks synchronisation on CUDA devices alone")
        try:
            run = train(
                loss.model, pathwise, Objective(), data, adam, watched, last, 8, range(2), checkpoints=(0, 2, last)
            )
            list(run)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        row["met"] = True
    return [row]


def memory(how: str, sizes: Sizes, device: str) -> list[Row]:
    """Most bytes allocated during one gradient of many samples: whole, by micro-batches, by chunks."""
    row: Row = {"what": "peak memory", "model": "mlp", "K": sizes.many, "B": sizes.batch, "variant": how}
    with recorded(row):
        loss, x, noise = problem("mlp", sizes.many, sizes.batch, device)
        function, parameters = loss_function(loss), own_parameters(loss)
        if how == "micro_batched":
            compute = micro_batched(function, 1)
        elif how == "chunked":
            compute = gradient_and_value(loss_function(Loss(loss.model, chunked(pathwise, 50), loss.objective)))
        else:
            compute = gradient_and_value(function)
        if x.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begin = time.perf_counter()
        compute(parameters, x, noise)
        if x.is_cuda:
            row["bytes"] = torch.cuda.max_memory_allocated() - before
        else:
            row["reason"] = "bytes are counted on CUDA devices alone"
        row["seconds"] = {"median": clock(device)() - begin}
    return [row]


def plan(sizes: Sizes, device: str) -> list[tuple[str, Callable[[], list[Row]]]]:
    """Every point by name, the cheap and important ones first; compilation takes long and comes last."""
    grid = [(model, k) for model in MODELS for k in sizes.samples]
    points: list[tuple[str, Callable[[], list[Row]]]] = []
    points += [(f"step {m} K={k}", lambda m=m, k=k: steps(m, k, sizes, device, QUICK)) for m, k in grid]
    points += [("host synchronisations", lambda: host_reads(sizes, device)), ("norms", lambda: norms(sizes, device))]
    points += [(f"fleet B={b}", lambda b=b: fleets(b, sizes, device)) for b in (8, 64)]
    ways = ("whole", "micro_batched", "chunked")
    points += [(f"memory {how}", lambda how=how: memory(how, sizes, device)) for how in ways]
    ends = [(model, k) for k in (sizes.samples[-1], sizes.samples[0]) for model in MODELS]
    points += [
        (f"compiled step {m} K={k}", lambda m=m, k=k: steps(m, k, sizes, device, (EAGER, *COMPILED))) for m, k in ends
    ]
    points += [(f"compiled fleet B={b}", lambda b=b: fleets(b, sizes, device, compiled)) for b in (8, 64)]
    return points
