"""`python -m benchmarks.accuracy`: cost and accuracy of every estimator on one page, resuming where it stopped."""

import sys
from pathlib import Path

import torch

from benchmarks.accuracy import report, runs, steps

REPORTS = Path("reports/accuracy")


def say(line: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(folder: Path = REPORTS) -> None:
    """Measure what is missing, then write the page."""
    torch.set_num_threads(1)
    steps.run(folder / "steps.csv", say)
    runs.run(folder / "runs.csv", say)
    report.write(folder)


if __name__ == "__main__":
    main()
