"""Two reports of pytest-benchmark: claims with their bounds, exact counters, and times."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaebench.experiments.comparison.change import (
    Change,
    align,
    counter,
    joint_error,
    lost,
    number,
    ratio,
    settings,
)
from vaebench.support.files import read_json
from vaebench.support.kinds import COUNTERS
from vaebench.support.texts import shown

ROUNDS = 5  # the fewest whose quartiles say something


@dataclass(frozen=True)
class Claim:
    """What the convergence tests keep of a verdict: it stands while the statistic is at most the bound.

    Attributes:
        value: the statistic.
        bound: the largest that passes.
        error: standard error of the statistic, if recorded.
    """

    value: float
    bound: float
    error: float | None

    @property
    def passed(self) -> bool:
        """Whether the claim stands."""
        return self.value <= self.bound

    @property
    def note(self) -> str:
        """The bound, and whether it is exceeded."""
        return f"allowed {self.bound:.4g}" + ("" if self.passed else ", fails")


@dataclass(frozen=True)
class Number:
    """A number that a benchmark recorded.

    Attributes:
        value: the number.
        exact: whether it is a counter, and lower is better.
    """

    value: float
    exact: bool
    note: str = ""


@dataclass(frozen=True)
class Time:
    """Seconds of one benchmark.

    Attributes:
        value: their median.
        least: their minimum.
        quartiles: the first and the third.
        rounds: how often it was timed.
    """

    value: float
    least: float
    quartiles: tuple[float, float]
    rounds: int
    note: str = ""


@dataclass(frozen=True)
class Report:
    """One run of the tests.

    Attributes:
        machine: what it ran on.
        quantities: by the benchmark's full name, and after a colon what was measured besides its claim.
    """

    machine: Mapping[str, Any]
    quantities: Mapping[str, Claim | Number | Time]


def read(path: Path) -> Report:
    """Read what `pytest --benchmark-json` or `vaebench certify` wrote; a file of another kind is a ValueError."""
    document = read_json(path)
    try:
        if "verdicts" in document:
            about = {"processor": document["about"]["processor"]}
            found = [_verdict(document["name"], one) for one in document["verdicts"]]
        else:
            machine = document["machine_info"]
            about = {"python": machine["python_version"], "processor": machine["cpu"].get("brand_raw")}
            found = [pair for entry in document["benchmarks"] for pair in _quantities(entry)]
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        raise ValueError(
            f"{path} is no report of pytest-benchmark and no certificate.json: make one with pytest --benchmark-json, "
            "or with vaebench certify."
        ) from None
    if len(dict(found)) < len(found):
        names = [name for name, _ in found]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} holds {shown(twice)} twice: compare reports of one run each.")
    return Report(about, dict(found))


def compare(before: Report, after: Report) -> list[Change]:
    """Compare two reports.

    Returns:
        The rows. A claim that stood and fails, and an exact counter that rose, have crossed their bounds; a claim
        or an exact counter that is gone is lost, and so is a claim whose statistic is no number any more, or whose
        bound was loosened to more than twice what it was.
    """
    rows = align(before.quantities, after.quantities, _judge)
    watched = [name for name, one in before.quantities.items() if isinstance(one, Claim) or _is_counter(one)]
    return settings(before.machine, after.machine) + lost(rows, watched)


def _is_counter(one: Claim | Number | Time) -> bool:
    return isinstance(one, Number) and one.exact


def _quantities(entry: Mapping[str, Any]) -> Iterator[tuple[str, Claim | Number | Time]]:
    name, kept, times = entry["fullname"], entry["extra_info"], entry["stats"]
    if not isinstance(name, str):
        raise TypeError(name)
    yield from ((f"{name}: {gate}", _claim(one)) for gate, one in kept.get("claims", {}).items())
    if "claim" in kept:
        yield name, _claim(kept)
    else:
        numbers = {key: value for key, value in kept.items() if type(value) in (int, float)}
        yield from ((f"{name}: {key}", Number(_float(value), key in COUNTERS)) for key, value in numbers.items())
    spread = (_float(times["q1"]), _float(times["q3"]))
    yield f"{name}: time", Time(_float(times["median"]), _float(times["min"]), spread, int(_float(times["rounds"])))


def _verdict(name: str, kept: Mapping[str, Any]) -> tuple[str, Claim]:
    """A gate of a certificate, under the name that the fixture `certify` gives it."""
    statistic = _float(kept["statistic"])
    if math.isnan(statistic) and kept["outcome"] == "fail":
        statistic = math.inf  # JSON has no word for it
    return f"{name}: {kept['place']}: {kept['gate']}", Claim(statistic, _float(kept["threshold"]), None)


def _float(value: object) -> float:
    """A number of JSON; null stands for one that was not finite."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    return float(value)


def _claim(kept: Mapping[str, Any]) -> Claim:
    error = kept.get("standard_error")
    return Claim(_float(kept["statistic"]), _float(kept["bound"]), None if error is None else _float(error))


def _judge(name: str, before: Claim | Number | Time, after: Claim | Number | Time) -> Change:
    match before, after:
        case Claim(), Claim():
            return _judge_claim(name, before, after)
        case Time(), Time():
            return _judge_time(name, before, after)
        case Number(exact=True), Number(exact=True):
            return counter(name, before.value, after.value)
    row = number(name, before.value, after.value)
    return replace(row, kind="lost", note="a claim no more") if isinstance(before, Claim) else row


def _judge_claim(name: str, before: Claim, after: Claim) -> Change:
    note = after.note + (f", allowed {before.bound:.4g} before" if before.bound != after.bound else "")
    row = number(name, before.value, after.value, joint_error(before.error, after.error), note)
    if math.isnan(after.value) and not math.isnan(before.value):
        return replace(row, kind="lost", note=f"{note}, no number any more")
    if not after.bound <= before.bound + abs(before.bound):
        return replace(row, kind="lost", note=f"{note}, which bounds nothing that it bounded")
    if before.passed == after.passed:
        return row
    return replace(row, kind="crossed" if before.passed else "recovered")


def _judge_time(name: str, before: Time, after: Time) -> Change:
    apart = before.quartiles[1] < after.quartiles[0] or after.quartiles[1] < before.quartiles[0]
    kind = "time" if apart and min(before.rounds, after.rounds) >= ROUNDS else "same"
    note = f"median {ratio(before.value, after.value)}, minimum {ratio(before.least, after.least)}"
    return Change(name, before.value, after.value, None, kind, note)
