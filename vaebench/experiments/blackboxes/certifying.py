"""The four answers about a black box, in the same shape as those about an estimator."""

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from vaebench.experiments.blackboxes import judging
from vaebench.experiments.blackboxes.protocol import Arrays, BlackBox, Claim
from vaebench.experiments.certifying.cost import OWN, Cost, CostPoint
from vaebench.experiments.certifying.findings import Findings, Progress, about
from vaebench.experiments.certifying.guarantee import Decay, Guarantee, paired_p_value
from vaebench.experiments.certifying.intervals import Interval, mean_ratio, median
from vaebench.experiments.certifying.noise import Noise, NoisePoint, ratio_of, snr_interval, variance_interval
from vaebench.experiments.certifying.question import LEVELS, Question
from vaebench.experiments.certifying.right import Judged
from vaebench.experiments.certifying.theory_run import Curve, band
from vaebench.measures.cost import clock, count, interleaved_seconds
from vaebench.measures.moments import gather
from vaebench.measures.probes import grad_sq
from vaebench.support.checks import one_of
from vaebench.support.layers import explaining
from vaebench.training.records import geometric

TRUSTED = "pathwise"  # the column beside which everything stands
REPLICATES = (400, 1000, 4000, 16000)  # gradients, of which the most is drawn that the time allows
SECONDS = {"fast": 0.0, "quick": 20.0, "default": 200.0}  # for those of the box and as many trusted ones
PILOT = 16  # gradients by which their time is known
STEPS, SEEDS, PROBES = {"fast": 10, "quick": 30, "default": 300}, {"fast": 3, "quick": 4, "default": 8}, 16
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
    holder, called = _Parameters(claim.box.parameters), f"{name} (yours)" if name == TRUSTED else name
    question = Question(
        called, _no_estimator, holder, torch.tensor(x), claim.objective, True, "black box", "sgd", scale, len(x), seed,
        LEVELS[level], claim.promise,
    )  # fmt: skip
    stream, seconds = np.random.SeedSequence(seed), {}

    def seeds(number: int) -> list[int]:
        return [int(one) for one in stream.spawn(1)[0].generate_state(number) >> np.uint32(1)]

    begun = time.perf_counter()
    progress("right", "contract, value, mean gradient and 1/B")
    first = judging.contract(claim.box, x, seeds(2))
    drawn = judging.judge_box(claim, x, _affordable(claim, x, seeds(PILOT), SECONDS[level]), seeds)
    seconds["right"] = time.perf_counter() - begun
    begun = time.perf_counter()
    progress("cost", "time, and operations where torch computes")
    cost = Cost(tuple(_costs(claim, x, question)), (), ())
    noise = Noise(tuple(_noises(drawn.mine, drawn.trusted, question)), ())
    seconds["cost"] = time.perf_counter() - begun
    begun = time.perf_counter()
    progress("guarantee", f"{SEEDS[level]} seeds of SGD, twice")
    guarantee = _run(
        claim, x, question, STEPS[level], [seeds(STEPS[level]) for _ in range(SEEDS[level])], seeds(PROBES)
    )
    seconds["guarantee"] = time.perf_counter() - begun
    verdicts = tuple(Judged(OWN, verdict) for verdict in (first, *drawn.verdicts))
    return Findings(question, verdicts, cost, noise, guarantee, (BLIND,), about(question), seconds)


def _affordable(claim: Claim, x: np.ndarray, seeds: list[int], seconds: float) -> int:
    """How many gradients of the box and of the trusted one the processor time allows, by that of a few."""
    begun = time.process_time()
    for one in (claim.box, claim.trusted):
        judging.draw(one, claim.box.parameters, x, seeds)
    one_pair = (time.process_time() - begun) / len(seeds)
    return max([many for many in REPLICATES if many * one_pair <= seconds], default=REPLICATES[0])


def _no_estimator(*given: object) -> Tensor:
    raise ValueError("A black box is no estimator.")


def _costs(claim: Claim, x: np.ndarray, q: Question) -> list[CostPoint]:
    boxes = {TRUSTED: claim.trusted, q.name: claim.box}

    def call(box: BlackBox) -> Callable[[], object]:
        return lambda: box.value_and_gradient(claim.box.parameters, x, q.seed)

    rounds = q.level.rounds
    times = interleaved_seconds(list(map(call, boxes.values())), clock("cpu"), 0.0, rounds, rounds).T
    base, found = times[list(boxes).index(TRUSTED)], []
    for (name, box), mine in zip(boxes.items(), times, strict=True):
        counted = count(call(box))
        found.append(
            CostPoint(OWN, name, q.objective.samples, len(x), *counted, 0, median(mine), median(mine / base))
        )  # fmt: skip
    return found


def _noises(mine: Tensor, theirs: Tensor, q: Question) -> list[NoisePoint]:
    moments = {name: gather([{"all": one}], len(one)) for name, one in ((TRUSTED, theirs), (q.name, mine))}
    base, freedom = variance_interval(moments[TRUSTED], ["all"])
    found = []
    for name, one in moments.items():
        own, _ = variance_interval(one, ["all"])
        ratio = Interval(1.0, 1.0, 1.0) if name == TRUSTED else ratio_of(own, base)
        point = name, "whole", q.objective.samples, q.batch_size, own, snr_interval(one, ["all"]), ratio, freedom + 1
        found.append(NoisePoint(*point))
    return found


def _run(claim: Claim, x: np.ndarray, q: Question, steps: int, seeds: list[list[int]], probes: list[int]) -> Guarantee:
    """SGD on the rows with the box's gradients and with the trusted ones, |grad f|^2 by the trusted at a few steps."""
    marks = [step for step in geometric(steps, 3) if step]
    rows: dict[str, list[list[float]]] = {q.name: [], TRUSTED: []}
    for path in seeds:
        for name, box in ((q.name, claim.box), (TRUSTED, claim.trusted)):
            kept = list(_descend(claim, box, x, q.scale, path, marks, probes))
            rows[name].append(kept + [math.nan] * (len(marks) - len(kept)))
    tables = {name: np.array(table) for name, table in rows.items()}
    curves: list[Curve] = [band(name, table, steps=marks) for name, table in tables.items()]
    lost = {name: int((~np.isfinite(table).all(1)).sum()) for name, table in tables.items()}
    top, bottom = (tables[name].mean(1) for name in (q.name, TRUSTED))
    both = np.isfinite(top) & np.isfinite(bottom)
    decay = None
    if both.sum() > 1:
        ratio, p_value = mean_ratio(top[both], bottom[both]), paired_p_value(top[both] - bottom[both])
        decay = Decay(TRUSTED, ratio, p_value, int(both.sum()), steps, (lost[q.name], lost[TRUSTED]))
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
                    drawn = judging.draw(claim.trusted, _like(at, start), x, probes)[1]
                    yield grad_sq(gather([{"all": drawn}], len(drawn))).value
        except ValueError:
            return


def _like(values: Arrays, start: Arrays) -> Arrays:
    """The same numbers in the precision of the start."""
    return {name: value.astype(start[name].dtype) for name, value in values.items()}
