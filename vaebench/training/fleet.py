"""Fleets: one training run per seed, all at once, and a single run is a fleet of one.

Parameters are stacked, (S, *shape). The gradient of the sum of the members' losses, `vmap` of one loss, is each
member's own gradient, and an elementwise optimizer on stacked tensors is one optimizer per member. Every member
has its own generator, which draws its minibatches and its noise in blocks, so that member s is the solo run of
seed s. Nothing in the loop waits for the device, except at checkpoints.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vaebench.data.sampling import SamplerFactory, Stream, block_length, joint_draws, with_replacement
from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, Parameters, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.gradients.trial import check_gradient, estimator_name
from vaebench.models import minibatch
from vaebench.support.layers import explaining, like_parameters
from vaebench.support.seeding import KEPT
from vaebench.training.optimizers import OptimizerFactory, check_elementwise
from vaebench.training.records import Checkpoint, State, Step, divergences, geometric
from vaebench.training.schedules import Schedule
from vaebench.training.snapshots import Found, Snapshot, Taken, capture, restore
from vaebench.training.steps import Compile, StepTaker, eager, step_taker

Probe = Callable[[State], Tensor]


def train(
    model: nn.Module | Sequence[nn.Module],
    estimator: Estimator,
    objective: Objective,
    data: Tensor,
    optimizer: OptimizerFactory,
    schedule: Schedule | Callable[[int], float],
    steps: int,
    batch_size: int,
    seeds: Sequence[int],
    *,
    sampler: SamplerFactory = with_replacement,
    checkpoints: Sequence[int] | None = None,
    probes: Mapping[str, Probe] | None = None,
    observe: Callable[[Step], None] | None = None,
    start: Snapshot | None = None,
    keep: Callable[[Callable[[], Snapshot]], None] | None = None,
    compiler: Compile = eager,
) -> Iterator[Checkpoint]:
    """Train one member per seed, all at once: x_n = x_{n-1} - gamma_n (what the optimizer makes of the gradient).

    Args:
        model: where all members start, or one model per seed; left alone.
        estimator: of the gradient.
        objective: the bound.
        data: (N, *event), as `check_input` takes them; bytes stay bytes, and become pixels batch by batch.
        optimizer: (parameters, lr) -> optimizer; elementwise, as those of `vaebench.training.optimizers` are.
        schedule: gamma_n, asked for n = 1, 2, ...
        steps: number of steps.
        batch_size: B.
        seeds: S distinct seeds of the members' generators, which live on the device of the model.
        sampler: of the minibatches; `epochwise` for what most training code does.
        checkpoints: increasing steps at which to report, from 0 (the start) to `steps`; default `geometric`.
        probes: functions of the state, by column name; evaluated at checkpoints only.
        observe: called after every step. It makes the loop copy the parameters.
        start: go on from there; the checkpoints that come are those not reported when it was taken.
        keep: called often, between steps, with a function that takes a snapshot. Needs `with_replacement`.
        compiler: of the gradient; a `vaebench.training.compilation.Compiler` makes small nets several times faster.

    Returns:
        The checkpoints, made as they are asked for; the last one comes early if every member diverged.

    Raises:
        ValueError: if seeds, models, data or checkpoints do not fit, or the optimizer is not elementwise;
            `check_gradient` says what else is refused.
    """
    marks = geometric(steps) if checkpoints is None else tuple(checkpoints)
    models = list(model) if isinstance(model, Sequence) else [model] * len(seeds)
    _require_fit(marks, steps, seeds, len(models))
    if len(seeds) > 1:
        check_elementwise(optimizer)
    made = {id(one): Loss(one, estimator, objective) for one in models}  # pyright: ignore[reportArgumentType]
    losses = [made[id(one)] for one in models]
    data = check_gradient(losses[0], data)
    parameters = _stack(losses)
    streams = _streams(losses[0], data, batch_size, sampler, seeds)
    rule = optimizer(list(parameters.values()), schedule(1))
    if start is not None:
        restore(start, parameters, rule, streams)
    done = start.step if start else 0
    taker = step_taker(losses[0], rule, compiler)
    draws = joint_draws(streams, steps - done)
    moves = _moves(losses[0], taker, parameters, rule, schedule, data, draws, observe, done)
    live = State(done, parameters, losses[0], data, tuple(seeds))
    block = block_length(streams[0])

    def save(step: int, taken: Taken, found: Found) -> None:
        if keep is not None and step % block == 0:  # elsewhere, the streams have drawn more than was used
            keep(lambda: capture(step, parameters, rule, streams, taken, found))

    return _report(live, moves, marks, dict(probes or {}), start, save)


def _require_fit(marks: Sequence[int], steps: int, seeds: Sequence[int], models: int) -> None:
    """Refuse checkpoints that do not go from the start to the end, and seeds that are not distinct, one per model."""
    if len(marks) < 2 or marks[0] != 0 or marks[-1] != steps or any(a >= b for a, b in pairwise(marks)):
        raise ValueError(f"checkpoints must increase from 0 to steps = {steps}, got {list(marks)}.")
    if not seeds or len({seed % KEPT for seed in seeds}) < len(seeds) or models != len(seeds):
        raise ValueError(
            f"seeds must be distinct in their lowest 32 bits, all that torch keeps of them, and one per model, got "
            f"{list(seeds)} for {models} model(s)."
        )


def _streams(loss: Loss, data: Tensor, batch_size: int, sampler: SamplerFactory, seeds: Sequence[int]) -> list[Stream]:
    like, shape = like_parameters(loss), loss.noise_shape(batch_size)
    generators = [torch.Generator(device=like.device).manual_seed(seed) for seed in seeds]
    return [Stream(sampler(len(data), batch_size, one), shape, like.dtype, one) for one in generators]


def _moves(
    loss: Loss,
    take: StepTaker,
    parameters: Parameters,
    optimizer: Optimizer,
    schedule: Callable[[int], float],
    data: Tensor,
    draws: Iterator[tuple[Tensor, Tensor]],
    observe: Callable[[Step], None] | None,
    done: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    like = next(iter(parameters.values()))
    for number, (indices, noise) in enumerate(draws, done + 1):
        x = minibatch(data, indices, like)
        gamma = schedule(number)
        for group in optimizer.param_groups:
            group["lr"] = gamma
        before = _copy(parameters) if observe else {}
        with explaining(loss, estimator_name(loss.estimator)):
            gradients, (losses, squares) = take(parameters, x, noise)
        if observe:
            after = {name: stacked.detach() for name, stacked in parameters.items()}
            observe(Step(number, gamma, before, after, gradients, losses, indices, noise))
        yield losses, squares


def _report(
    live: State,
    moves: Iterator[tuple[Tensor, Tensor]],
    marks: Sequence[int],
    probes: Mapping[str, Probe],
    start: Snapshot | None,
    save: Callable[[int, Taken, Found], None],
) -> Iterator[Checkpoint]:
    empty = live.like.new_zeros(0, len(live.seeds))
    past = [part.to(empty.device) for part in (start.losses, start.grad_sq)] if start else []
    taken = list(zip(*past, strict=True))
    found = start.diverged if start else ()
    step = live.step
    for stop in (mark for mark in marks if mark >= live.step):
        while step < stop:
            taken.append(next(moves))
            step += 1
            save(step, taken, found)
        losses, squares = (torch.stack(part) for part in zip(*taken, strict=True)) if taken else (empty, empty)
        state = replace(live, step=stop, parameters=_copy(live.parameters))
        diverged = divergences(state, losses, stop - len(taken)) | {one.seed: one for one in found}
        found = tuple(diverged[seed] for seed in live.seeds if seed in diverged)
        taken = []
        yield Checkpoint(state, losses, squares, {name: probe(state) for name, probe in probes.items()}, found)
        if len(found) == len(live.seeds):
            return


def _copy(parameters: Parameters) -> Parameters:
    return {name: stacked.detach().clone() for name, stacked in parameters.items()}


def _stack(losses: Sequence[Loss]) -> Parameters:
    _require_alike(losses)
    own = {id(loss): own_parameters(loss) for loss in losses}
    members = [own[id(loss)] for loss in losses]
    return {name: torch.stack([member[name] for member in members]).requires_grad_() for name in members[0]}


def _require_alike(losses: Sequence[Loss]) -> None:
    """Refuse losses whose models differ in more than trained values: a fleet calls the first with the values of all."""

    def layout(loss: Loss) -> dict[str, tuple]:
        kinds = {name: (t.shape, t.dtype, t.device) for name, t in loss.state_dict().items()}
        return kinds | {name: (*kinds[name], p.requires_grad) for name, p in loss.named_parameters()}

    def fixed(loss: Loss) -> list[Tensor]:
        return [*loss.buffers(), *(p for p in loss.parameters() if not p.requires_grad)]

    first = losses[0]
    for other in {id(loss.model): loss for loss in losses}.values():
        if layout(other) != layout(first) or not all(map(torch.equal, fixed(first), fixed(other))):
            raise ValueError(
                "The models of a fleet must have the same parameters by name, shape and dtype, and equal buffers and "
                "frozen parameters."
            )
