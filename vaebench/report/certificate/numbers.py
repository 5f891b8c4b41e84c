"""A certificate as numbers: one long table, and JSON of a versioned schema (docs/certificates.md describes it)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from vaebench.experiments.certifying import Findings
from vaebench.experiments.certifying.intervals import Interval
from vaebench.report.certificate.words import headline, tiles

SCHEMA = 1
DIGITS = 10  # of a number in a file
COLUMNS = ("section", "place", "estimator", "block", "K", "B", "quantity", "value", "low", "high", "state")


def frame(found: Findings) -> pd.DataFrame:
    """Every number, one a row.

    Args:
        found: the findings.

    Returns:
        Columns section, place, estimator, block, K, B, quantity, value, low and high (a 95 % interval), state (of a
        gate: its outcome).
    """
    rows = [*_gates(found), *_costs(found), *_noises(found), *_guarantees(found)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def document(found: Findings) -> dict[str, Any]:
    """The certificate for JSON; numbers have ten digits, and what is not finite becomes null.

    Args:
        found: the findings.

    Returns:
        The document, of schema version 1.
    """
    q = found.question
    made = {
        "schema": SCHEMA,
        "name": q.name,
        "outcome": found.outcome,
        "sentence": headline(found),
        "question": {
            "model": q.model_name,
            "parameters": sum(p.numel() for p in q.model.parameters()),
            "data": list(q.data.shape),
            "objective": asdict(q.objective) | {"name": q.bound},
            "optimizer": q.optimizer,
            "scale": q.scale,
            "batch_size": q.batch_size,
            "seed": q.seed,
            "level": asdict(q.level),
        },
        "tiles": [tile._asdict() for tile in tiles(found)],
        "verdicts": [{"place": one.place, "section": one.section} | one.verdict.to_dict() for one in found.judged],
        "left_out": list(found.left_out),
        "cost": asdict(found.cost),
        "noise": asdict(found.noise),
        "guarantee": asdict(found.guarantee),
        "about": found.about,
        "seconds": found.seconds,
    }
    return _finite(made)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _row(section: str, quantity: str, value: float | Interval, **place: Any) -> dict[str, Any]:
    known = asdict(value) if isinstance(value, Interval) else {"value": value}
    return {"section": section, "quantity": quantity} | known | place


def _gates(found: Findings) -> Iterator[dict[str, Any]]:
    for one in found.judged:
        v, place = one.verdict, {"place": one.place, "estimator": found.question.name, "state": one.verdict.outcome}
        yield _row(one.section, f"{v.gate}: statistic", v.statistic, **place)
        yield _row(one.section, f"{v.gate}: threshold", v.threshold, **place)
        if v.smallest is not None:
            yield _row(one.section, f"{v.gate}: smallest found", v.smallest, **place)


def _costs(found: Findings) -> Iterator[dict[str, Any]]:
    for point in found.cost.points:
        where = {"place": point.net, "estimator": point.estimator, "K": point.samples, "B": point.batch}
        for name in ("flops", "ops", "peak_bytes", "saved_bytes", "seconds", "ratio"):
            if (value := getattr(point, name)) is not None:
                yield _row("cost", name, value, **where)
    for scaling in found.cost.scalings:
        for name in ("flops", "peak_bytes", "seconds"):
            quantity, value = f"exponent of {name} in {scaling.axis}", getattr(scaling, name)
            if value is None:
                continue
            yield _row("cost", quantity, value, place=scaling.net, estimator=scaling.estimator)


def _noises(found: Findings) -> Iterator[dict[str, Any]]:
    for point in found.noise.points:
        where = {"estimator": point.estimator, "block": point.block, "K": point.samples, "B": point.batch}
        for name in ("variance", "snr", "ratio"):
            yield _row("noise", name, getattr(point, name), place="your model", **where)


def _guarantees(found: Findings) -> Iterator[dict[str, Any]]:
    kept = found.guarantee
    for name, value in kept.numbers.items():
        yield _row("guarantee", name, value, place=kept.bed, estimator=found.question.name)
    if kept.decay.compared:
        quantity = f"mean |grad f|^2 / {kept.decay.built_in}'s"
        yield _row("guarantee", quantity, kept.decay.ratio, place="your model", estimator=found.question.name)
