"""`python -m benchmarks.peers truth|cost|report`: compare with other libraries, resuming where it stopped."""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.peers import cost, efficiency, fleets, report, truth

REPORTS = Path("reports/peers")


def say(line: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> None:
    """Run one command, then write the page of all results that there are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Compare with other libraries.")
    parser.add_argument("command", choices=["truth", "cost", "report"])
    parser.add_argument("--quick", action="store_true", help="of the costs, a few points only")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.command == "truth":
        truth.run(REPORTS / "truth.csv", say)
    if chosen.command == "cost":
        fleets.run(REPORTS / "fleets.csv", say)
        cost.run(REPORTS / "cost.csv", chosen.quick, say)
        efficiency.run(REPORTS / "efficiency.csv", say)
    report.write(REPORTS)


if __name__ == "__main__":
    main()
