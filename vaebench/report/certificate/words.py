"""What a certificate says in words: one sentence of verdict, four tiles, and what each section found."""

from collections.abc import Iterator
from typing import NamedTuple

from vaebench.experiments.certifying import Findings
from vaebench.experiments.certifying.cost import OWN, CostPoint, at_own
from vaebench.experiments.certifying.levels import BEDS
from vaebench.experiments.certifying.noise import NoisePoint
from vaebench.experiments.certifying.right import Judged
from vaebench.gates.verdict import overall
from vaebench.report.certificate.amounts import interval, short, times
from vaebench.report.wording import number, several

STATES = {"pass": "good", "fail": "bad", "no power": "unknown"}
SAID = {"pass": "certified", "fail": "refused", "no power": "not certified"}
TOLD = 0.5  # percent: a deviation of the KL weight below it is not worth a sentence
EXPLAINED = 0.8  # of the difference: where a wrong scale or weight explains less, something else is wrong


class Tile(NamedTuple):
    """One of the four answers, as the first screen has it.

    Attributes:
        key: of its section.
        question: that it answers.
        state: "good", "bad", "unknown", or "" where nothing is judged.
        answer: in a few words.
        text: what stands behind it.
    """

    key: str
    question: str
    state: str
    answer: str
    text: str


def headline(found: Findings) -> str:
    """The verdict in one sentence.

    Args:
        found: the findings.

    Returns:
        The sentence.
    """
    name, total = found.question.name, len(found.judged)
    where = f"for the {found.question.bound}"
    if found.outcome == "fail":
        failed = [one for one in found.judged if one.verdict.outcome == "fail"]
        worst = max(failed, key=lambda one: (one.verdict.statistic / (one.verdict.threshold or 1.0), one.place == OWN))
        return (
            f"{name} is refused {where}: {len(failed)} of {total} gates fail, most clearly “{worst.verdict.gate}” on "
            f"{_the(worst.place)}{_off(failed)}."
        )
    if found.outcome == "no power":
        blind = [one for one in found.judged if one.verdict.outcome == "no power"]
        return f"{name} is not certified {where}: no gate fails, but {len(blind)} of {total} would not have shown much."
    cost, noise = at_own(found.cost.points, found.question), _noise_at_own(found, "whole")
    told = [f"all {total} gates pass"]
    if name != found.question.beside:  # beside itself, there is nothing to tell
        told += [f"it takes {times(cost.ratio)} the time of {found.question.beside}"] if cost else []
        told += [f"{'' if cost else 'it '}has {times(noise.ratio)} its variance"] if noise else []
    return f"{name} is certified {where}: {several(told)}."


def _the(place: str) -> str:
    """A place with its article."""
    numbered = place in BEDS and "latent" in place
    return place if place == OWN else f"the {'bed with ' if numbered else ''}{place}"


def _off(failed: list[Judged]) -> str:
    """By how much the scale or the weight of the Kullback-Leibler term is off, if that explains what was found."""
    told: dict[tuple[float, float], str] = {}
    for name, words in {"KL weight": "the weight of the KL term", "scale": "the gradient's scale"}.items():
        known = [one.verdict.evidence for one in failed if f"{name} error" in one.verdict.evidence]
        best = min(known, key=lambda evidence, name=name: evidence[f"{name} error"], default={})
        off, explains = best.get(f"{name} off by", 0.0), best.get(f"{name} explains", 1.0)
        error = best.get(f"{name} error", 0.0)
        if explains > EXPLAINED and abs(off) > max(5 * error, TOLD / 100):
            told[explains, abs(off) / max(error, 1e-300)] = (
                f"; {words} is off by {'+' if off > 0 else '-'}{short(abs(100 * off), 2)} %"
            )
    return told[max(told)] if told else ""


def tiles(found: Findings) -> list[Tile]:
    """The four answers.

    Args:
        found: the findings.

    Returns:
        One tile a section.
    """
    return [_right(found), _cost(found), _noise(found), _guarantee(found)]


def of_section(found: Findings, section: str) -> list[Judged]:
    """The verdicts that answer one of the questions, those that did not pass first."""
    mine = [one for one in found.judged if one.section == section]
    order = {"fail": 0, "no power": 1, "pass": 2}
    return sorted(mine, key=lambda one: order[one.verdict.outcome])


def _right(found: Findings) -> Tile:
    judged = of_section(found, "right")
    outcome = overall(one.verdict for one in judged) if judged else "no power"
    counts = [one.verdict.outcome for one in judged]
    answers = {
        "pass": f"yes, {len(judged)} of {len(judged)} gates",
        "fail": f"no, {counts.count('fail')} of {len(judged)} gates fail",
        "no power": f"not settled, {counts.count('no power')} of {len(judged)} had no power",
    }
    return Tile("right", "Right?", STATES[outcome], answers[outcome], " ".join(_resolution(found)) or "No gate ran.")


def _resolution(found: Findings) -> Iterator[str]:
    places = list(dict.fromkeys(one.place for one in found.judged if one.section == "right"))
    if places:
        yield f"Judged on {several(list(map(_the, places)))}."
    paired = {one.place: one.verdict for one in found.judged if "KL weight found from" in one.verdict.evidence}
    if paired:
        place = OWN if OWN in paired else next(iter(paired))
        weight = 100 * paired[place].evidence["KL weight found from"]
        yield f"On {_the(place)} a KL weight wrong by {short(weight, 2)} % is found with probability 0.9."
    means = [one for one in found.judged if one.verdict.gate == "gradient mean" and one.place == OWN]
    if not paired and means and means[0].verdict.smallest is not None:
        size = 100 * means[0].verdict.smallest
        yield f"On your model a gradient whose scale is wrong by {short(size, 2)} % is found with probability 0.9."
    alarm = sum(verdict.false_alarm for verdict in found.verdicts)
    if alarm:
        yield f"Correct code fails with probability {number(float(f'{alarm:.1g}'))} at most."


def _cost(found: Findings) -> Tile:
    point = at_own(found.cost.points, found.question)
    if point is None:
        return Tile("cost", "Cost?", "unknown", "not measured", "It was left out; see below.")
    base = _beside(found, point)
    counters = [
        f"{short(mine / other, 3)} × {name}"
        for name, mine, other in (
            ("FLOPs", point.flops, base.flops),
            ("operations", point.ops, base.ops),
            ("peak bytes", point.peak_bytes, base.peak_bytes),
        )
        if other and mine is not None  # of a box that is not torch's, nothing was counted
    ]
    told = several([f"{interval(point.ratio)} × in time", *counters])
    text = f"{told}; K = {point.samples}, B = {point.batch}."
    nets = dict.fromkeys(p.net for p in found.cost.points if p.net != OWN)
    known = [f"on {n}: {interval(p.ratio)} ×" for n in nets if (p := at_own(found.cost.points, found.question, n))]
    text += f" In time {'; '.join(known)}." if known else ""
    return Tile("cost", "Cost?", "", f"{short(point.ratio.value, 3)} × {found.question.beside}", text)


def _beside(found: Findings, point: CostPoint) -> CostPoint:
    place = point.net, found.question.beside, point.samples, point.batch
    return next(p for p in found.cost.points if (p.net, p.estimator, p.samples, p.batch) == place)


def _noise_at_own(found: Findings, block: str, name: str = "") -> NoisePoint | None:
    q = found.question
    wanted = name or q.name, block, q.objective.samples, min(q.batch_size, len(q.data))
    return next((p for p in found.noise.points if (p.estimator, p.block, p.samples, p.batch) == wanted), None)


def _noise(found: Findings) -> Tile:
    whole = _noise_at_own(found, "whole")
    if whole is None:
        return Tile("noise", "Noise?", "unknown", "not measured", "It was left out; see below.")
    known = [(f"{block} ", _noise_at_own(found, block)) for block in ("encoder", "decoder")]
    parts = [(block, point) for block, point in known if point] or [("", whole)]
    variances = "; ".join(f"{block}{interval(point.ratio)}" for block, point in parts)
    ratios = "; ".join(f"{block}{_snr(found, point)}" for block, point in parts)
    beside = found.question.beside
    words = f"Variance over that of {beside}: {variances}. Signal-to-noise ratio: {ratios}."
    cost = at_own(found.cost.points, found.question)
    if cost is not None:
        words += f" Time × variance: {short(cost.ratio.value * whole.ratio.value, 3)} of that of {beside}."
    return Tile("noise", "Noise?", "", f"{short(whole.ratio.value, 3)} × {beside}", words)


def _snr(found: Findings, point: NoisePoint) -> str:
    """One's own signal-to-noise ratio, and that of what stands beside it."""
    beside, own = found.question.beside, interval(point.snr, 2)
    base = _noise_at_own(found, point.block, beside)
    return own if base is None or base is point else f"{own}, of {beside} {short(base.snr.value, 2)}"


def _guarantee(found: Findings) -> Tile:
    judged, kept = of_section(found, "guarantee"), found.guarantee
    outcome = overall(one.verdict for one in judged) if judged else None
    state = STATES[outcome] if outcome else "unknown"
    answers = {"good": "kept", "bad": "broken", "unknown": "not settled"}
    told = [f"{name} {interval(value)}" for name, value in kept.numbers.items()]
    text = [f"On {_the(kept.bed)}: {several(told)}."] if told else ["No theory's curve is known here."]
    text.append(decay_words(found))
    if kept.decay.diverged[0] > kept.decay.diverged[1]:
        state = "bad"
    elif state == "good" and not kept.decay.compared:
        state = "unknown"
    return Tile("guarantee", "Guarantee?", state, answers[state], " ".join(text))


def decay_words(found: Findings) -> str:
    """The comparison of both trainings of one's own model in a sentence or two."""
    decay = found.guarantee.decay
    place = OWN if found.question.own else "the linear VAE"
    if not decay.compared:
        own, other = decay.diverged
        return (
            f"Training on {place} was not compared: {own} of {decay.trained} seeds left the finite numbers, and "
            f"{other} with {decay.built_in}; --scale makes the steps smaller."
        )
    lost = f" {decay.diverged[0]} of its seeds diverged." if decay.diverged[0] else ""
    return (
        f"On {place} the mean ‖∇f‖² over {decay.steps} steps is {interval(decay.ratio)} × that of {decay.built_in}: "
        f"{decay.finding} (p = {short(decay.p_value, 2)}, {decay.seeds} seeds).{lost}"
    )
