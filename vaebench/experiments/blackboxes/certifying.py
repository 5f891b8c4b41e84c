"""The four answers about a black box, in the same shape as those about an estimator."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.experiments.blackboxes import judging
from vaebench.experiments.blackboxes.drawing import draw
from vaebench.experiments.blackboxes.protocol import Arrays, BlackBox, Claim
from vaebench.experiments.certifying.cost import FEWEST, OWN, PROCESSOR_TIME, WALL_CLOCK, Cost, CostPoint, scaling
from vaebench.experiments.certifying.findings import Findings, Progress, about
from vaebench.experiments.certifying.guarantee import Guarantee, compare_decays
from vaebench.experiments.certifying.intervals import Interval, median
from vaebench.experiments.certifying.levels import LEVELS
from vaebench.experiments.certifying.noise import Noise, NoisePoint, ratio_of, snr_interval, variance_interval
from vaebench.experiments.certifying.question import Question
from vaebench.experiments.certifying.right import Judged
from vaebench.experiments.certifying.theory_run import Curve, band
from vaebench.measures.cost import count, interleaved_seconds
from vaebench.measures.moments import Moments, gather
from vaebench.measures.probes import grad_sq
from vaebench.support.checks import one_of
from vaebench.support.layers import explaining
from vaebench.training.records import geometric

REPLICATES = (400, 1600, 6400, 16000)  # gradients, of which the most is drawn that the time allows
SECONDS = {"fast": 3.0, "quick": 20.0, "default": 200.0}  # for those of the box and as many trusted ones, at two points
FALL = 0.25  # of these seconds: for the gradients by which the fall of the variance is judged
BATCHES = (8, 32, 128)  # B at which a gradient is timed
TRIED = 9  # gradients of either by which the clock is chosen
ELSEWHERE = 0.5  # of the time of a box: with less of it in this process, the rest passes in another, or on a device
PILOT = 16  # gradients by which their time is known
TILED = (1, 4, 16, 64)  # times over that the rows may make a batch
STEPS, SEEDS, PROBES = {"fast": 10, "quick": 30, "default": 300}, {"fast": 3, "quick": 4, "default": 8}, 16
TRAINING, FEWEST_STEPS = {"fast": 15.0, "quick": 15.0, "default": 150.0}, 10  # seconds of training, and steps of it
BLIND = "reference beds, laws in K, ledgers and envelopes: a black box has no estimator to put in their place"


class _Parameters(nn.Module):
    """The parameters of a box, for what counts them."""

    def __init__(self, given: Arrays):
        super().__init__()
        for number, value in enumerate(given.values()):
            self.register_parameter(f"p{number}", nn.Parameter(torch.tensor(np.asarray(value))))


def find(
    claim: Claim, x: np.ndarray, *, name: str, level: str, scale: float, seed: int, progress: Progress
) -> Findings:
    """Find the four answers about a black box.

    Args:
        claim: the box, what it is held against, and the bound.
        x: rows, all of which make every batch.
        name: of the box.
        level: "fast", "quick" or "default".
        scale: C of the steps C / sqrt(n) of its run of SGD.
        seed: of everything random.
        progress: called with a section and a line of text when something begins.

    Returns:
        The findings.
    """
    one_of("level", level, LEVELS)
    holder, called = _Parameters(claim.box.parameters), f"{name} (yours)" if name == claim.beside else name
    question = Question(
        called, _no_estimator, holder, torch.tensor(x), claim.objective, True, "black box", "sgd", scale, len(x), seed,
        LEVELS[level], claim.promise, claim.beside,
    )  # fmt: skip
    stream, seconds = np.random.SeedSequence(seed), {}

    def seeds(number: int) -> list[int]:
        return [int(one) for one in stream.spawn(1)[0].generate_state(number) >> np.uint32(1)]

    begun = time.perf_counter()
    progress("right", "contract, value, mean gradient and 1/B")
    first = judging.contract(claim.box, x, seeds(2))
    tick = _clock([lambda box=box: draw(box, claim.box.parameters, x, seeds(1)) for box in (claim.trusted, claim.box)])
    spent = _seconds_of_a_pair(claim, x, seeds(PILOT), tick, SECONDS[level])
    fast = [one for one in spent if 2 * REPLICATES[0] * spent[one] <= SECONDS[level]] or [1]
    tiles = min(fast, key=lambda one: spent[one] / one)  # the most rows a second
    count = max([many for many in REPLICATES if 2 * many * spent[tiles] <= SECONDS[level]], default=REPLICATES[0])
    drawn = judging.judge_box(claim, x, tiles, count, draws_of_fall(spent, SECONDS[level]), seeds)
    seconds["right"] = time.perf_counter() - begun
    begun = time.perf_counter()
    progress("cost", "time, and operations where torch computes")
    cost = _cost(claim, x, question, tick)
    noise = Noise(tuple(one for batch, pair in drawn.pairs.items() for one in _noises(batch, pair, question)), ())
    seconds["cost"] = time.perf_counter() - begun
    begun = time.perf_counter()
    steps = min(STEPS[level], max(FEWEST_STEPS, int(TRAINING[level] / (SEEDS[level] * spent[1]))))
    progress("guarantee", f"{SEEDS[level]} seeds of SGD for {steps} steps, twice")
    guarantee = _run(claim, x, question, steps, [seeds(steps) for _ in range(SEEDS[level])], seeds(PROBES))
    seconds["guarantee"] = time.perf_counter() - begun
    verdicts = tuple(Judged(OWN, verdict) for verdict in (first, *drawn.verdicts))
    left_out = (BLIND, *drawn.left_out, *cost.left_out)
    return Findings(question, verdicts, cost, noise, guarantee, left_out, about(question), seconds)


def draws_of_fall(spent: Mapping[int, float], seconds: float) -> int:
    """How many gradients at either batch size judge the fall of the variance: what a quarter of the time allows.

    Args:
        spent: seconds of a pair by how many times over the rows make the batch.
        seconds: for all gradients of the level.

    Returns:
        A multiple of 16 between 208 and 3,328.

    >>> draws_of_fall({1: 0.004, 4: 0.005}, 20.0), draws_of_fall({1: 1.0}, 20.0)
    (544, 208)
    """
    both = spent[1] + spent.get(judging.TILES, judging.TILES * spent[1])
    return min(max(judging.FEW, int(FALL * seconds / both) // 16 * 16), judging.MOST)


def _seconds_of_a_pair(
    claim: Claim, x: np.ndarray, seeds: list[int], tick: Callable[[], float], most: float
) -> dict[int, float]:
    """How long a gradient of the box and a trusted one take, by how many times over the rows make the batch.

    Returns:
        Seconds; of no larger batch where the fewest that are drawn would take longer than `most` seconds.

    Raises:
        ValueError: if the box fails on its rows.
    """
    found = {}
    for tiles in TILED if claim.whole else TILED[:1]:
        rows = np.concatenate([x] * tiles)
        try:
            begun = tick()
            for one in (claim.box, claim.trusted):
                draw(one, claim.box.parameters, rows, seeds)
        except ValueError:
            if not found:
                raise
            break  # a box of these rows alone
        found[tiles] = max(tick() - begun, 1e-9) / len(seeds)
        if 2 * REPLICATES[0] * found[tiles] > most:
            break
    return found


def _no_estimator(*given: object) -> Tensor:
    raise ValueError("A black box is no estimator.")


def _cost(claim: Claim, x: np.ndarray, q: Question, tick: Callable[[], float]) -> Cost:
    """Counters, times and their growth in B, on the rows repeated or cut; K is the box's own."""
    boxes, points, left_out = {q.beside: claim.trusted, q.name: claim.box}, [], []
    at = claim.box.parameters
    for batch in sorted({*BATCHES, len(x)}):
        rows = np.resize(x, (batch, *x.shape[1:]))
        try:
            for box in boxes.values():
                draw(box, at, rows, [q.seed])
        except ValueError as refusal:
            left_out.append(f"cost at B = {batch}: {str(refusal).splitlines()[0]}")
            continue
        runs = [partial(box.value_and_gradient, at, rows, q.seed) for box in boxes.values()]
        base, *_ = columns = interleaved_seconds(runs, tick, q.level.timing, FEWEST, q.level.rounds).T
        for name, run, mine in zip(boxes, runs, columns, strict=True):
            counted = count(run)
            flops, ops, peak = counted if counted.ops else (None, None, None)
            times = median(mine), median(mine / base)
            points.append(CostPoint(OWN, name, q.objective.samples, batch, flops, ops, peak, None, *times))
    lines = [[point for point in points if point.estimator == name] for name in boxes]
    growth = [scaling("B", line) for line in lines if len(line) > 1]
    return Cost(
        tuple(points), tuple(growth), tuple(left_out), PROCESSOR_TIME if tick is time.process_time else WALL_CLOCK
    )


def _clock(runs: Sequence[Callable[[], object]]) -> Callable[[], float]:
    """Processor time, or the wall clock where the second run, a box, leaves its work to another process or a device."""
    ticks = time.perf_counter, time.process_time
    wall, own = (np.median(interleaved_seconds(runs, tick, 0.0, TRIED, TRIED), 0) for tick in ticks)
    trusted, box = own / wall  # of a second, what this process is given: on a busy machine less for both
    return time.process_time if box > ELSEWHERE * min(1.0, trusted) else time.perf_counter


def _noises(batch: int, pair: tuple[Moments, Moments], q: Question) -> list[NoisePoint]:
    own, trusted = pair
    base, _ = variance_interval(trusted, ["all"])
    found = []
    for name, one in ((q.beside, trusted), (q.name, own)):
        size, _ = variance_interval(one, ["all"])
        ratio = Interval(1.0, 1.0, 1.0) if name == q.beside else ratio_of(size, base)
        found.append(
            NoisePoint(name, "whole", q.objective.samples, batch, size, snr_interval(one, ["all"]), ratio, one.count)
        )
    return found


def _run(claim: Claim, x: np.ndarray, q: Question, steps: int, seeds: list[list[int]], probes: list[int]) -> Guarantee:
    """SGD on the rows with the box's gradients and with the trusted ones, |grad f|^2 by the trusted at a few steps."""
    marks = [step for step in geometric(steps, 3) if step]
    rows: dict[str, list[list[float]]] = {q.name: [], q.beside: []}
    for path in seeds:
        for name, box in ((q.name, claim.box), (q.beside, claim.trusted)):
            kept = list(_descend(claim, box, x, q.scale, path, marks, probes))
            rows[name].append(kept + [math.nan] * (len(marks) - len(kept)))
    tables = {name: np.array(table) for name, table in rows.items()}
    curves: list[Curve] = [band(name, table, steps=marks) for name, table in tables.items()]
    lost = {name: int((~np.isfinite(table).all(1)).sum()) for name, table in tables.items()}
    own, trusted = (tables[name] for name in (q.name, q.beside))
    decay = compare_decays(q.beside, own, trusted, steps, (lost[q.name], lost[q.beside]))
    return Guarantee("", (), {}, decay, tuple(curves), ())


def _descend(
    claim: Claim, box: BlackBox, x: np.ndarray, scale: float, path: list[int], marks: list[int], probes: list[int]
) -> Iterator[float]:
    """|grad f|^2 at the marks of one run; it ends where the run leaves the finite numbers, or what a box can take."""
    start = claim.box.parameters
    at = {name: np.array(value, dtype=np.float64) for name, value in start.items()}
    for step, seed in enumerate(path, 1):
        try:
            with explaining(nn.Module(), "The black box"), np.errstate(all="ignore"):
                gradient = box.value_and_gradient(_like(at, start), x, seed)[1]
                at = {name: value - scale / math.sqrt(step) * gradient[name] for name, value in at.items()}
                if step in marks:
                    drawn = draw(claim.trusted, _like(at, start), x, probes)[1]
                    yield grad_sq(gather([{"all": drawn}], len(drawn))).value
        except ValueError:
            return


def _like(values: Arrays, start: Arrays) -> Arrays:
    """The same numbers in the precision of the start."""
    return {name: value.astype(start[name].dtype) for name, value in values.items()}
