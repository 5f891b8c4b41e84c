"""What does it cost? Exact counters and interleaved times of a gradient, beside the built-in estimators."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vaebench.experiments.certifying.intervals import Interval, median
from vaebench.experiments.certifying.nets import Net, reference_nets
from vaebench.experiments.certifying.question import Question, Say
from vaebench.gradients import Estimator, Loss, Objective, doubly_reparameterized, draw_noise, pathwise
from vaebench.measures.cost import count, interleaved_seconds, own_clock, saved_bytes
from vaebench.support.layers import explaining

FEWEST = 5  # rounds at a point
PATIENCE = 20.0  # seconds for one point: a larger one is left out
OWN = "your model"
PROCESSOR_TIME, WALL_CLOCK = "the processor time of this process", "the wall clock"


@dataclass(frozen=True)
class CostPoint:
    """The cost of one gradient of one estimator.

    Attributes:
        net: one's own model, or the name of a reference net.
        estimator: its name.
        samples: K.
        batch: B.
        flops: floating-point operations of matrix products and convolutions; None where torch does not compute.
        ops: operations dispatched, likewise.
        peak_bytes: most bytes held at once, likewise.
        saved_bytes: kept from the forward pass for the backward one; None where they are not apart.
        seconds: median time.
        ratio: of its time to that of `pathwise`, the median over interleaved pairs.
    """

    net: str
    estimator: str
    samples: int
    batch: int
    flops: int | None
    ops: int | None
    peak_bytes: int | None
    saved_bytes: int | None
    seconds: Interval
    ratio: Interval


@dataclass(frozen=True)
class Scaling:
    """How a cost grows: the log-log slope between the ends of a grid, 1 if it is proportional.

    Attributes:
        net: as in `CostPoint`.
        estimator: its name.
        axis: "K" or "B".
        flops: exponent; None where nothing was counted.
        peak_bytes: exponent, likewise.
        seconds: exponent, with its interval.
    """

    net: str
    estimator: str
    axis: str
    flops: float | None
    peak_bytes: float | None
    seconds: Interval


@dataclass(frozen=True)
class Cost:
    """Everything about cost.

    Attributes:
        points: by net, estimator, K and B.
        scalings: by net, estimator and axis.
        left_out: what was not measured, and why.
        clock: what the times were taken by, in words.
    """

    points: tuple[CostPoint, ...]
    scalings: tuple[Scaling, ...]
    left_out: tuple[str, ...]
    clock: str


def grid(question: Question, product: bool) -> list[tuple[int, int]]:
    """The points (K, B), of both those of the level and one's own.

    Args:
        question: what is asked.
        product: all pairs, or each axis at the other's own value.

    Returns:
        The points, in order.
    """
    q, level = question, question.level
    samples = sorted({*level.samples, q.objective.samples})
    batches = sorted({*level.batches, q.batch_size} & set(range(1, len(q.data) + 1)) | {min(q.batch_size, len(q.data))})
    if product:
        return [(k, b) for k in samples for b in batches]
    own = q.objective.samples, min(q.batch_size, len(q.data))
    return sorted({(k, own[1]) for k in samples} | {(own[0], b) for b in batches})


def rivals(question: Question) -> dict[str, Estimator]:
    """What is measured, by name: `pathwise`, the doubly reparameterised estimator, and one's own."""
    found: dict[str, Estimator] = {"pathwise": pathwise, "doubly_reparameterized": doubly_reparameterized}
    return found | {question.name: question.estimator}


def measure_cost(question: Question, say: Say) -> Cost:
    """Count and time.

    Args:
        question: what is asked.
        say: told what begins.

    Returns:
        Points of one's own model and of reference nets in one's own dtype; of these over K and over B alone.
    """
    q, points, left_out = question, [], []
    like = next(q.model.parameters())
    for net in (Net(OWN, q.model, q.data), *reference_nets(q)):
        say(f"cost of {net.name}")
        for samples, batch in grid(q, q.level.product and net.name == OWN):
            x = net.data[:batch]
            if len(x) == batch:
                points += _at(net.name, net.model, x, samples, question, left_out)
    clock = PROCESSOR_TIME if own_clock(like.device) is time.process_time else WALL_CLOCK
    return Cost(tuple(points), tuple(_scalings(points, q)), tuple(dict.fromkeys(left_out)), clock)


def _at(
    place: str, model: nn.Module, x: Tensor, samples: int, question: Question, left_out: list[str]
) -> Iterator[CostPoint]:
    q = question
    objective = Objective(samples, q.objective.alpha, q.objective.beta)
    noise = draw_noise(model, x, objective, q.generator(7), q.estimator)  # pyright: ignore[reportArgumentType]
    losses: dict[str, tuple[Loss, Tensor]] = {}
    parameters = [p for p in model.parameters() if p.requires_grad]
    tick = own_clock(x.device)
    for name, estimator in rivals(q).items():
        loss = Loss(model, estimator, objective)  # pyright: ignore[reportArgumentType]
        try:
            drawn = loss.own_part(noise).contiguous()
            before = tick()
            with explaining(model, name):
                gradient(loss, x, drawn, parameters)
            spent = tick() - before
        except ValueError as refusal:
            left_out.append(f"cost of {name} at K = {samples}: {refusal}")
            continue
        if spent * 5 > PATIENCE:
            left_out.append(f"cost of {place} at K = {samples}, B = {len(x)}: one gradient takes {spent:.1f} s")
            return
        losses[name] = loss, drawn
    if question.name not in losses or "pathwise" not in losses:
        return
    counters = {name: count(lambda one=one: gradient(one[0], x, one[1], parameters)) for name, one in losses.items()}
    saved = {name: saved_bytes(lambda one=one: one[0](x, one[1])) for name, one in losses.items()}
    runs = [partial(gradient, loss, x, drawn, parameters) for loss, drawn in losses.values()]
    columns = interleaved_seconds(runs, tick, q.level.timing, min(FEWEST, q.level.rounds), q.level.rounds).T
    times = dict(zip(losses, columns, strict=True))
    for name, found in counters.items():
        ratios = times[name] / times["pathwise"]
        yield CostPoint(
            place, name, samples, len(x), *found, saved[name], median(times[name]), median(ratios)
        )  # fmt: skip


def gradient(loss: Loss, x: Tensor, noise: Tensor, parameters: Sequence[Tensor]) -> None:
    """Take one gradient, of which nothing is kept: what is counted and timed.

    Args:
        loss: of one estimator.
        x: (B, *event).
        noise: of the loss's shape.
        parameters: of the model.
    """
    torch.autograd.grad(loss(x, noise), parameters, allow_unused=True)


def _scalings(points: Sequence[CostPoint], question: Question) -> Iterator[Scaling]:
    own = {"K": min(question.batch_size, len(question.data)), "B": question.objective.samples}
    for net, name in dict.fromkeys((point.net, point.estimator) for point in points):
        mine = [point for point in points if (point.net, point.estimator) == (net, name)]
        for axis, fixed in own.items():
            line = [p for p in mine if (p.batch if axis == "K" else p.samples) == fixed]
            line.sort(key=lambda point, axis=axis: point.samples if axis == "K" else point.batch)
            if len(line) > 1:
                yield scaling(axis, line)


def scaling(axis: str, line: Sequence[CostPoint]) -> Scaling:
    """How a cost grows along a line of points of one net and estimator.

    Args:
        axis: "K" or "B", in which the points are ordered.
        line: the points, of which the ends count.

    Returns:
        The exponents.
    """
    low, high = line[0], line[-1]
    span = math.log(high.samples * high.batch / (low.samples * low.batch))

    def slope(first: float, last: float) -> float:
        return math.log(last / first) / span if first > 0 and last > 0 else 0.0

    short, long = low.seconds, high.seconds
    seconds = Interval(
        slope(short.value, long.value), slope(short.high, long.low), slope(short.low, long.high)
    )  # fmt: skip
    counted = ((low.flops, high.flops), (low.peak_bytes, high.peak_bytes))
    flops, peak = (None if first is None or last is None else slope(first, last) for first, last in counted)
    return Scaling(low.net, low.estimator, axis, flops, peak, seconds)


def at_own(points: Sequence[CostPoint], question: Question, net: str = OWN) -> CostPoint | None:
    """One's own estimator at one's own K and B; None if it was left out."""
    wanted = net, question.name, question.objective.samples, min(question.batch_size, len(question.data))
    return next((p for p in points if (p.net, p.estimator, p.samples, p.batch) == wanted), None)
