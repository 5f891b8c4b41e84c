"""Ledgers of long runs: every row carries the settings of the gates that it was measured with.

Rows of other settings, or of none, stand until they are measured again, and the page counts them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from tests.ledgers import Row, read, write

SETTINGS = "7"  # raise when the gates or the beds change, with the commit below: all rows are measured again
COMMITS = {  # of the gates, by settings
    "2": "a4ff85d, of 23 November 2026, before steps were replayed beside trusted gradients",
    "4": "00d6b85, of 28 November 2026, before what a reference errs by was allowed for in its own length",
    "5": "d70feb7, of 28 November 2026, before noise was held against the direction of earlier noise",
    "6": "7e6043a, of 28 November 2026, before a third moment that is rounding was held for none",
    "7": "11b4c08, of 28 November 2026",
}
Job = tuple[str, ...]
Say = Callable[[str], None]


def measure_missing(
    path: Path, columns: Sequence[str], names: Sequence[str], jobs: Mapping[Job, Callable[[], list[Row]]], say: Say
) -> list[Row]:
    """Measure the jobs of which a ledger has no rows of today's settings, in turn, and write it after each.

    Args:
        path: of the ledger; rows of what is no job are left out of it.
        columns: of the ledger.
        names: of those columns whose cells tell of which job a row is.
        jobs: what to measure, by these cells, in the order of rows: each gives its rows.
        say: where progress is told.

    Returns:
        The ledger's rows.
    """
    torch.set_num_threads(1)
    place = {job: number for number, job in enumerate(jobs)}
    job_of = lambda row: tuple(row[name] for name in names)
    rows = [row for row in read(path) if job_of(row) in place]
    done = {job_of(row) for row in rows if row.get("settings") == SETTINGS}
    for job, measure in jobs.items():
        if job in done:
            continue
        rows = [row for row in rows if job_of(row) != job]
        rows = sorted([*rows, *({**row, "settings": SETTINGS} for row in measure())], key=lambda r: place[job_of(r)])
        write(path, columns, rows)
        say(f"{place[job] + 1}/{len(place)} {', '.join(job)}")
    return rows


def gates_of(rows: Iterable[Row]) -> str:
    """With the gates of which commits rows were measured: one sentence, which counts those that are not today's."""
    counts = Counter(row.get("settings") or "" for row in rows)
    total, today = sum(counts.values()), counts.pop(SETTINGS, 0)
    if not counts:
        return f"Measured with the gates of commit {COMMITS[SETTINGS]}."
    old = [f"{count} with those of {_commit(one)}" for one, count in sorted(counts.items())]
    told = f"{today} of {total} rows were measured with the gates of commit {COMMITS[SETTINGS]}"
    return f"{told}; {', '.join(old)}, which the same command measures again."


def _commit(settings: str) -> str:
    return f"commit {COMMITS[settings]}" if settings in COMMITS else "an earlier commit that the rows do not name"
