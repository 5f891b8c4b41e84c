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
from torch.func import grad_and_value, vmap
from torch.optim import Optimizer

from vaebench.data.sampling import SamplerFactory, Stream, block_length, joint_draws, with_replacement
from vaebench.gradients.estimators import Estimator
from vaebench.gradients.loss import Loss, Parameters, loss_function, own_parameters
from vaebench.gradients.memory import Differentiator
from vaebench.gradients.objectives import Objective
from vaebench.models import check_input, minibatch
from vaebench.models.elementary import compiling
from vaebench.training.optimizers import OptimizerFactory, check_elementwise
from vaebench.training.records import Checkpoint, State, Step, divergences, geometric
from vaebench.training.schedules import Schedule
from vaebench.training.snapshots import Found, Snapshot, Taken, capture, restore
from vaebench.training.steps import Stepper, eager_step

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
    stepper: Stepper = eager_step,
) -> Iterator[Checkpoint]:
    """Train one member per seed, all at once: x_n = x_{n-1} - gamma_n (what the optimizer makes of the gradient).

    Args:
        model: where all members start, or one model per seed; left alone.
        estimator: of the gradient.
        objective: the bound.
        data: (N, *event); floats on the model's device, or bytes anywhere, which become pixels batch by batch.
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
        stepper: makes a step of gradient and optimizer; `compiled_step` makes small nets several times
            faster, most with `fused_adam`; member s is then the solo run of seed s to rounding.

    Returns:
        The checkpoints, made as they are asked for; the last one comes early if every member diverged.

    Raises:
        ValueError: if seeds, models, data or checkpoints do not fit, or the optimizer is not elementwise.
    """
    marks = geometric(steps) if checkpoints is None else tuple(checkpoints)
    if len(marks) < 2 or marks[0] != 0 or marks[-1] != steps or any(a >= b for a, b in pairwise(marks)):
        raise ValueError(f"checkpoints must increase from 0 to steps = {steps}, got {list(marks)}.")
    models = list(model) if isinstance(model, Sequence) else [model] * len(seeds)
    if not seeds or len(set(seeds)) < len(seeds) or len(models) != len(seeds):
        raise ValueError(f"seeds must be distinct, one per model, got {list(seeds)} for {len(models)} model(s).")
    if len(seeds) > 1:
        check_elementwise(optimizer)
    losses = [Loss(one, estimator, objective) for one in models]  # pyright: ignore[reportArgumentType]
    check_input(losses[0].model, data)
    parameters = _stack(losses)
    streams = [_stream(losses[0], data, batch_size, sampler, seed) for seed in seeds]
    rule = optimizer(list(parameters.values()), schedule(1))
    if start is not None:
        restore(start, parameters, rule, streams)
    done = start.step if start else 0
    moves = _moves(losses[0], parameters, rule, schedule, data, streams, observe, done, stepper)
    live = State(done, parameters, losses[0], data, tuple(seeds))
    block = block_length(streams[0])

    def save(step: int, taken: Taken, found: Found) -> None:
        if keep is not None and step % block == 0:  # elsewhere, the streams have drawn more than was used
            keep(lambda: capture(step, parameters, rule, streams, taken, found))

    return _report(live, moves, marks, dict(probes or {}), start, save)


def _stream(loss: Loss, data: Tensor, batch_size: int, sampler: SamplerFactory, seed: int) -> Stream:
    like = next(loss.parameters())
    generator = torch.Generator(device=like.device).manual_seed(seed)
    shape = (loss.objective.samples, batch_size, loss.model.latents)
    return Stream(sampler(len(data), batch_size, generator), shape, like.dtype, generator)


def _moves(
    loss: Loss,
    parameters: Parameters,
    optimizer: Optimizer,
    schedule: Callable[[int], float],
    data: Tensor,
    streams: Sequence[Stream],
    observe: Callable[[Step], None] | None,
    done: int,
    stepper: Stepper,
) -> Iterator[tuple[Tensor, Tensor]]:
    step, like = None, next(iter(parameters.values()))
    for number, (indices, noise) in enumerate(joint_draws(streams), done + 1):
        x = minibatch(data, indices, like)
        eager = stepper is eager_step
        step = step or stepper(_recorded(_differentiator(loss, parameters, x, noise, eager)), optimizer)
        gamma = schedule(number)
        for group in optimizer.param_groups:
            group["lr"] = gamma
        before = _copy(parameters) if observe else {}
        gradients, (losses, squares) = step(parameters, x, noise)
        if observe:
            after = {name: stacked.detach() for name, stacked in parameters.items()}
            observe(Step(number, gamma, before, after, gradients, losses, indices, noise))
        yield losses, squares


def _grad_sq(gradients: list[Tensor], joined: bool) -> Tensor:
    """Squared norms (S,): one kernel per parameter, or all joined first, where launches cost more than a copy."""
    if compiling():
        return sum((g.square().flatten(1).sum(1) for g in gradients), gradients[0].new_zeros(()))
    if joined:
        return torch.linalg.vector_norm(torch.cat([g.flatten(1) for g in gradients], 1), dim=1).square()
    if len(gradients[0]) == 1:  # the same at two thirds of the time
        return torch.stack(torch._foreach_norm(gradients)).square().sum(0, keepdim=True)  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]).square().sum(0)


def _recorded(differentiate: Differentiator) -> Differentiator:
    """Its values are losses and squared norms of the gradients, (2, S); compiled with it, these are nearly free."""

    def run(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        found, losses = differentiate(parameters, x, noise)
        return found, torch.stack([losses.detach(), _grad_sq(list(found.values()), joined=x.is_cuda)])

    return run


def _differentiator(loss: Loss, parameters: Parameters, x: Tensor, noise: Tensor, eager: bool) -> Differentiator:
    # One backward pass for all members, if it gives their own gradients; else one for each, inside vmap. A hook
    # that an estimator sets, as `doubly_reparameterized` does, is lost to a pass from outside, without an error.
    # A compiled step need not keep every bit, and one member is then spared vmap.
    stacked_loss = vmap(loss_function(loss))
    careful = (vmap if len(x) > 1 or eager else _alone)(grad_and_value(loss_function(loss)))

    def fast(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        with torch.enable_grad():
            losses = stacked_loss(parameters, x, noise)
            found = torch.autograd.grad(losses.sum(), list(parameters.values()), materialize_grads=True)
        return dict(zip(parameters, found, strict=True)), losses

    def slow(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        return careful({name: p.detach() for name, p in parameters.items()}, x, noise)

    if not eager:
        return slow
    (ours, _), (theirs, _) = fast(parameters, x, noise), slow(parameters, x, noise)
    allowed = 1e5 * torch.finfo(x.dtype).eps
    close = [_largest(ours[n] - g) <= allowed * _largest(g) for n, g in theirs.items()]
    return fast if all(close) else slow


def _alone(differentiate: Callable[..., tuple[Parameters, Tensor]]) -> Differentiator:
    """`vmap` of a gradient for one member, in two thirds of the time, to rounding."""

    def stacked(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        own = {name: p.squeeze(0) for name, p in parameters.items()}
        gradients, value = differentiate(own, x.squeeze(0), noise.squeeze(0))
        return {name: g.unsqueeze(0) for name, g in gradients.items()}, value.unsqueeze(0)

    return stacked


def _largest(gradient: Tensor) -> Tensor:
    """Largest magnitude, diverged members aside."""
    return gradient.abs().nan_to_num(0, 0, 0).max()


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
    def layout(loss: Loss) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in loss.state_dict().items()}

    first = losses[0]
    for other in losses[1:]:
        same = layout(other) == layout(first)
        if not same or not all(map(torch.equal, first.buffers(), other.buffers())):
            raise ValueError(
                "The models of a fleet must have the same parameters by name and shape, and equal buffers."
            )
    members = [own_parameters(loss) for loss in losses]
    return {name: torch.stack([member[name] for member in members]).requires_grad_() for name in members[0]}
