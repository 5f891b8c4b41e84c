"""Is it right? The gates, on reference beds with exact gradients and on one's own model beside trusted estimators."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vaebench.experiments.certifying import beds
from vaebench.experiments.certifying.cost import gradient
from vaebench.experiments.certifying.question import Question, Say, at_precision
from vaebench.gates import Stage, Verdict, run_gates
from vaebench.gates.at_rest import gradients_at_rest
from vaebench.gates.means import PER_PARAMETER, exact_at, gradient_mean
from vaebench.gates.paired import closest, differences, paired_mean
from vaebench.gates.reference import exact_reference
from vaebench.gates.subject import Subject
from vaebench.gates.variances import separate_rows
from vaebench.gradients import (
    Estimator,
    Loss,
    Parameters,
    analytic_kl,
    doubly_reparameterized,
    draw_noise,
    pathwise,
)
from vaebench.measures.cost import count
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS
from vaebench.training.schedules import constant, inverse_sqrt

OWN = "your model"
ROWS = 256  # of one's own data, where an exact gradient of all of them is wanted
EXACT_PARAMETERS = 200  # up to which one's own model is judged by the gates of a run, if it has an exact gradient
WARM, RATE = 200, 1e-3  # steps and step size of Adam that carry one's own model away from its start
GUARANTEE = frozenset({"telescoped envelope", "identity", "envelope", "Adam's ledger"})
BED_SCALE = 0.01  # C on a reference bed, where its curvature is known
# Of an estimator that a bed does not suit.
REFUSALS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class Judged:
    """A verdict and where it was reached.

    Attributes:
        place: a reference bed, or one's own model.
        verdict: of one gate.
    """

    place: str
    verdict: Verdict

    @property
    def section(self) -> str:
        """The question it answers: "right" or "guarantee"."""
        return "guarantee" if self.verdict.gate in GUARANTEE else "right"


def judge_all(question: Question, say: Say) -> tuple[list[Judged], list[str]]:
    """Run every gate that applies.

    Args:
        question: what is asked.
        say: told what begins.

    Returns:
        The verdicts, and what was left out and why.
    """
    judged, left_out = [], []
    stages: list[tuple[str, Callable[[list[str]], Iterator[Judged]]]] = [
        ("the linear bed", lambda out: _linear(question, out)),
        *((f"the bed with {name}", lambda out, name=name: _bed(question, name, out)) for name in question.level.beds),
    ]
    for title, stage in stages:
        say(title)
        try:
            judged += list(stage(left_out))
        except REFUSALS as refusal:
            left_out.append(f"{title}: {question.name} refuses it ({_short(refusal)})")
    if question.own:
        say("your model")
        judged += list(_own(question, left_out))
    return judged, left_out


def _short(refusal: Exception) -> str:
    return (str(refusal).strip().splitlines() or [type(refusal).__name__])[0][:160]


def _linear(question: Question, left_out: list[str]) -> Iterator[Judged]:
    q, level = question, question.level
    latents = 2 if q.objective.alpha == 1 else 1
    model, data = beds.linear(q.generator(1), latents)
    place = "linear VAE" if latents == 2 else "linear VAE with one latent"
    bed = beds.Bed(model, data)
    said: list[str] = []
    found = list(_gates(q, place, bed, level.steps, BED_SCALE, said))
    if any(one.verdict.gate == "divergence" and one.verdict.outcome == "fail" for one in found):
        steps = f"steps of {BED_SCALE:g} / sqrt(n): it leaves the finite numbers"
        said = [f"{place}: a run with {steps}, and is judged with steps of a tenth"]
        found = list(_gates(q, place, bed, level.steps, BED_SCALE / 10, said))
    left_out += said
    yield from found


def _gates(q: Question, place: str, bed: beds.Bed, steps: int, scale: float, left_out: list[str]) -> Iterator[Judged]:
    def hear(stage: Stage) -> None:
        left_out.extend([f"{place}: {stage.title}: {stage.reason}"] if stage.left_out else [])

    found = run_gates(
        bed.model,
        q.estimator,
        q.objective,
        bed.data,
        optimizer=q.optimizer,
        schedule=inverse_sqrt(scale),
        steps=steps,
        members=q.level.members,
        replicates=q.level.replicates,
        seed=q.seed,
        law=q.name,
        progress=hear,
    )
    yield from (Judged(place, verdict) for verdict in found)


def _bed(question: Question, name: str, left_out: list[str]) -> Iterator[Judged]:
    """The mean gradient at two random settings of the parameters, against the exact one."""
    q = question
    model, data = beds.REFERENCE[name](q.generator(2))
    other, _ = beds.REFERENCE[name](q.generator(3))
    exact = exact_reference(model, q.objective, data)  # pyright: ignore[reportArgumentType]
    if exact is None:
        left_out.append(f"the bed with {name}: its weights are too wide for quadrature at this bound")
        return
    points = [{f"model.{n}": p.detach() for n, p in one.named_parameters()} for one in (model, other)]
    subject = Subject(model, q.estimator, q.objective, data, q.batch_size, OPTIMIZERS[q.optimizer])
    size = sum(p.numel() for p in model.parameters())
    replicates = max(q.level.replicates, -(-PER_PARAMETER * size // 8) * 8)
    seeds = _seeds(q)
    draws = [gradients_at_rest(subject.at_parameters(point), replicates, seeds) for point in points]
    _, found = exact_at(exact, points)
    yield Judged(name, gradient_mean(["one random start", "another"], draws, found, q.generator(4)))


def _seeds(q: Question) -> Iterator[int]:
    generator = q.generator(9)
    while True:
        yield int(torch.randint(2**62, (), generator=generator))


def trusted_estimators(question: Question) -> list[Estimator]:
    """The built-in estimators of the same bound, one's own aside unless there is no other."""
    known = [pathwise, doubly_reparameterized, *([analytic_kl] if question.objective.alpha == 1 else [])]
    return [one for one in known if one is not question.estimator]


def warm_point(question: Question) -> Parameters:
    """Parameters of one's own model after some steps of Adam with `pathwise`."""
    q = question
    loop = train(
        q.model, pathwise, q.objective, q.data, OPTIMIZERS["adam"], constant(RATE), WARM, q.batch_size, [q.seed],
        checkpoints=(0, WARM),
    )  # fmt: skip
    *_, last = loop
    return last.state.member(0)


def _pairs(q: Question, trusted: Estimator, x: Tensor, left_out: list[str]) -> int:
    """As many pairs as the level wants, half as many or a quarter, by the exact operations that one takes."""
    noise = draw_noise(q.model, x, q.objective, q.generator(8), q.estimator)  # pyright: ignore[reportArgumentType]
    losses = [Loss(q.model, one, q.objective) for one in (q.estimator, trusted)]  # pyright: ignore[reportArgumentType]
    parameters = [p for p in q.model.parameters() if p.requires_grad]
    one = sum(count(lambda loss=loss: gradient(loss, x, loss.own_part(noise), parameters)).flops for loss in losses)
    wanted = q.level.pairs
    kept = next((n for n in (wanted, wanted // 2) if n * one <= q.level.operations), wanted // 4)
    if kept < wanted:
        took = f"one pair takes {one / 1e6:.3g} MFLOP"
        left_out.append(f"your model: {wanted - kept:,} of {wanted:,} pairs of gradients at each point: {took}")
    return kept


def _own(question: Question, left_out: list[str]) -> Iterator[Judged]:
    q = at_precision(question, torch.float64)
    few = q.data[:ROWS]
    size = sum(p.numel() for p in q.model.parameters())
    exact = exact_reference(q.model, q.objective, few) if size <= EXACT_PARAMETERS else None  # pyright: ignore[reportArgumentType]
    if exact is not None:
        yield from _gates(q, OWN, beds.Bed(q.model, few), min(q.level.steps, 1000), q.scale, left_out)
        return
    left_out.append(
        "your model: bound value, ledgers and envelopes, which need an exact gradient; it is judged beside the "
        "built-in estimators at equal noise, and by |grad f|^2 as it trains"
    )
    generator, x = q.generator(5), q.data[: q.batch_size]
    subject = Subject(q.model, q.estimator, q.objective, q.data, q.batch_size, OPTIMIZERS[q.optimizer])
    yield Judged(OWN, separate_rows(subject, generator))
    points = {"the start": None, f"{WARM} steps of Adam": warm_point(q)}
    trusted = closest(q.model, q.estimator, trusted_estimators(q), q.objective, x, generator)
    pairs = _pairs(q, trusted, x, left_out)
    found = [
        differences(
            q.model, q.estimator, q.objective, q.data, q.batch_size, pairs, generator, point, trusted
        )
        for point in points.values()
    ]  # fmt: skip
    yield Judged(OWN, paired_mean(list(points), found))
