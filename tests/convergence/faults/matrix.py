"""Run faults through `run_gates` and keep one row each: resumable, and written in one rename."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.convergence.faults import elbo, iwae, loops  # noqa: F401 (importing them registers the faults)
from tests.convergence.faults.catalogue import FAULTS, Fault
from tests.ledgers import Row, read, write
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
SETTINGS = "4"  # raise when the gates or the beds change: rows of other settings are run again


def examine(fault: Fault, optimizer: str, seed: int, **options: Any) -> tuple[Row, list[Verdict]]:
    """One row: the statistic of every gate that ran, alarms marked with a star; a refusal is an alarm."""
    began = time.perf_counter()
    try:
        verdicts = run_gates(**(fault.arguments(optimizer) | options), seed=seed)
    except ValueError:
        verdicts = [judge(REFUSED, "nothing is refused that can be run", 1.0, 0.0, 0.0)]
    cells = {v.gate: f"{v.statistic:.3g}{'*' if v.outcome == 'fail' else ''}" for v in verdicts}
    about = {"source": fault.source, "bed": fault.bed, "fault": fault.name, "seed": str(seed), "settings": SETTINGS}
    about["seconds"] = f"{time.perf_counter() - began:.1f}"
    return about | {"caught": str(sum(v.outcome == "fail" for v in verdicts))} | cells, verdicts


def chosen(optimizer: str) -> list[Fault]:
    order = {"control": 0, "listed": 1, "further": 2}
    faults = [fault for fault in FAULTS.values() if fault.rule in {"any", optimizer}]
    return sorted(faults, key=lambda f: (order[f.source], f.bed))


def run(path: Path, jobs: list[tuple[Fault, str, int]], say: Callable[[str], None], **options: Any) -> list[Row]:
    """Examine what the file does not hold yet, and write it after every row."""
    torch.set_num_threads(1)
    wanted = {(f.bed, f.name, str(seed)): place for place, (f, _, seed) in enumerate(jobs)}
    key = lambda row: (row["bed"], row["fault"], row["seed"])
    rows = [row for row in read(path) if row["settings"] == SETTINGS and key(row) in wanted]
    done = set(map(key, rows))
    for number, (fault, optimizer, seed) in enumerate(jobs, 1):
        if (fault.bed, fault.name, str(seed)) in done:
            continue
        row, verdicts = examine(fault, optimizer, seed, **options)
        rows = sorted([*rows, row], key=lambda r: wanted[key(r)])
        write(path, COLUMNS, rows)
        alarms = ", ".join(v.gate for v in verdicts if v.outcome == "fail") or "no alarm"
        say(f"{number}/{len(jobs)} {optimizer} {fault.bed} {fault.name} ({row['seconds']} s): {alarms}")
    return rows
