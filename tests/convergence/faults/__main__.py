"""`python -m tests.convergence.faults [sgd] [adam] [nulls] [calibration] [detection] [table]`.

What is missing of each is run, then the page is written.
"""

import sys
from pathlib import Path

from tests.convergence.faults import calibration, detection
from tests.convergence.faults.catalogue import FAULTS
from tests.convergence.faults.matrix import chosen, run
from tests.convergence.faults.table import table

REPORTS = Path("reports/faults")
NULLS = 25  # seeds per bed
SEED = 2025


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 (a command: progress is its business)


def main(wanted: list[str]) -> None:
    for optimizer in ("sgd", "adam"):
        if optimizer in wanted:
            run(REPORTS / f"{optimizer}.csv", [(fault, optimizer, SEED) for fault in chosen(optimizer)], say)
    if "nulls" in wanted:
        jobs = [(FAULTS[bed, "none"], "sgd", seed) for seed in range(NULLS) for bed in ("elbo", "iwae")]
        run(REPORTS / "nulls.csv", jobs, say)
    if "calibration" in wanted:
        calibration.run(REPORTS, say)
    if "detection" in wanted:
        detection.run(REPORTS, say)
    table(REPORTS)


if __name__ == "__main__":
    main(sys.argv[1:] or ["sgd", "adam"])
