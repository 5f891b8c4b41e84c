"""Run faults through `run_gates` and keep one row each: resumable, and written in one rename."""

import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.convergence.faults import elbo, iwae, loops  # noqa: F401 (importing them registers the faults)
from tests.convergence.faults.catalogue import FAULTS, Fault
from tests.convergence.faults.measuring import Say, measure_missing
from tests.ledgers import Row
from vaebench.gates import Verdict, judge, run_gates

REFUSED = "refused before a run"
GATES = (
    REFUSED,
    "divergence",
    "optimizer step",
    "replay",
    "randomness",
    "paired ledger",
    "separate rows",
    "gradient mean",
    "gradient mean, paired",
    "bound value",
    "variance in B",
    "independent draws",
    "variance in K",
    "SNR in K",
    "descent ledger",
    "noise mean",
    "successive noise",
    "members",
    "noise size",
    "telescoped envelope",
    "identity",
    "envelope",
    "Adam's ledger",
)
COLUMNS = ("source", "bed", "fault", "seed", "settings", "seconds", "caught", *GATES)


def examine(fault: Fault, optimizer: str, seed: int, **options: Any) -> tuple[Row, list[Verdict]]:
    """One row: the statistic of every gate that ran, alarms marked with a star; a refusal is an alarm."""
    began = time.perf_counter()
    try:
        verdicts = run_gates(**(fault.arguments(optimizer) | options), seed=seed)
    except ValueError:
        verdicts = [judge(REFUSED, "nothing is refused that can be run", 1.0, 0.0, 0.0)]
    cells = {v.gate: f"{v.statistic:.3g}{'*' if v.outcome == 'fail' else ''}" for v in verdicts}
    about = {"source": fault.source, "bed": fault.bed, "fault": fault.name, "seed": str(seed)}
    about["seconds"] = f"{time.perf_counter() - began:.1f}"
    return about | {"caught": str(sum(v.outcome == "fail" for v in verdicts))} | cells, verdicts


def chosen(optimizer: str) -> list[Fault]:
    order = {"control": 0, "listed": 1, "further": 2}
    faults = [fault for fault in FAULTS.values() if fault.rule in {"any", optimizer}]
    return sorted(faults, key=lambda f: (order[f.source], f.bed))


def run(path: Path, jobs: list[tuple[Fault, str, int]], say: Say, **options: Any) -> list[Row]:
    """Examine what the file does not hold yet, and write it after every row."""

    def measured(fault: Fault, optimizer: str, seed: int) -> list[Row]:
        row, verdicts = examine(fault, optimizer, seed, **options)
        say(", ".join(v.gate for v in verdicts if v.outcome == "fail") or "no alarm")
        return [row]

    wanted = {(fault.bed, fault.name, str(seed)): partial(measured, fault, rule, seed) for fault, rule, seed in jobs}
    return measure_missing(path, COLUMNS, ("bed", "fault", "seed"), wanted, say)
