"""Tables: all arms side by side for a page, and every number as CSV."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from vaebench.report.bands import Summary
from vaebench.report.study import Result
from vaebench.report.wording import estimate, number, symbol

BESIDE = " †"  # behind seconds that were measured beside other work, or nobody knows
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of one


class Cell(NamedTuple):
    """What a cell says, what it is sorted by (None comes last), and whether it is "good" or "bad"."""

    text: str
    key: float | None = None
    state: str = ""


class Table(NamedTuple):
    """Column titles, and a row of cells for every arm."""

    columns: list[str]
    rows: list[tuple[Result, list[Cell]]]


def side_by_side(results: Sequence[Result]) -> Table:
    """All arms: checks, seeds, estimates with standard errors, costs.

    Returns:
        The table; a number that an arm does not have is a dash.
    """
    finals = _names(one.summary.final for one in results if one.summary)
    costs = _names(one.summary.cost for one in results if one.summary)
    rows = [(one, [_checks(one), _seeds(one), *_numbers(one, finals, costs)]) for one in results]
    return Table(["checks", "seeds", *map(symbol, finals), *costs], rows)


def csv_files(results: Sequence[Result]) -> dict[str, bytes]:
    """Every number of a report, by file name: one row per arm, and for every arm one row per quantity and step."""
    made = {"arms.csv": csv(pd.DataFrame([_row(one) for one in results]))}
    for one in results:
        if one.summary:
            made[f"{one.name}.csv"] = csv(pd.concat(list(_curves(one.summary)), ignore_index=True))
    return made


def _names(found: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in found for name in names))


def _checks(one: Result) -> Cell:
    failed = sum(verdict.outcome == "fail" for verdict in one.verdicts)
    if not one.verdicts:
        return Cell("none made", 0.5, "")
    if failed:
        return Cell(f"{failed} of {len(one.verdicts)} failed", failed, "bad")
    blind = sum(verdict.outcome == "no power" for verdict in one.verdicts)
    return Cell(f"{blind} of {len(one.verdicts)} without power", 0.25, "") if blind else Cell("all passed", 0, "good")


def _seeds(one: Result) -> Cell:
    return Cell(one.warning.replace(" seeds", ""), one.kept, "bad") if one.diverged else Cell(str(one.kept), one.kept)


def is_seconds(name: str) -> bool:
    """Whether a cost is measured in seconds, which other work on the machine changes."""
    return name.startswith("seconds")


def _numbers(one: Result, finals: Sequence[str], costs: Sequence[str]) -> Iterator[Cell]:
    summary = one.summary
    for name in finals:
        found = summary.final.get(name) if summary else None
        yield Cell(estimate(found), _finite(found.value)) if found else Cell("—")
    for name in costs:
        cost = summary.cost.get(name) if summary else None
        mark = BESIDE if is_seconds(name) and one.company else ""
        yield Cell("—") if cost is None else Cell(number(cost) + mark, _finite(cost))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _row(one: Result) -> dict[str, object]:
    failed = sum(verdict.outcome == "fail" for verdict in one.verdicts)
    row: dict[str, object] = {"arm": one.label, "hash": one.hash, "seeds": len(one.seeds), "kept seeds": one.kept}
    row |= {"checks": len(one.verdicts), "failed checks": failed}
    if one.summary:
        for name, found in one.summary.final.items():
            row |= {name: found.value, f"{name}, standard error": found.error}
        row |= one.summary.cost
    return row | {"load": one.trajectory.metadata.get("load")}


def _curves(summary: Summary) -> Iterator[pd.DataFrame]:
    bands = {"|grad|^2": summary.gradient, "T_n": summary.running}
    bands |= {f"negative bound, {data}": band for data, band in summary.bounds.items()} | summary.extra
    for name, (step, mean, low, high) in bands.items():
        yield pd.DataFrame({"quantity": name, "step": step, "mean": mean, "low": low, "high": high})
    for name, line in {"envelope": summary.envelope, "prediction": summary.prediction}.items():
        if line is not None:
            yield pd.DataFrame({"quantity": f"{name} of T_n", "step": line.step, "mean": line.value})


def csv(frame: pd.DataFrame) -> bytes:
    """The bytes of a table, ten digits of every number, an apostrophe before what a spreadsheet takes for a formula."""
    texts = {name: frame[name].map(_no_formula) for name in frame if frame[name].dtype.kind not in "iufb"}
    return frame.assign(**texts).to_csv(index=False, float_format="%.10g", lineterminator="\n").encode()


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
