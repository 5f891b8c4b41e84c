"""`python -m benchmarks.pages`: write every page in reports/ again, from its tables; measures nothing."""

from pathlib import Path

import benchmarks.accuracy.report
import benchmarks.paper.page
import benchmarks.peers.report
from benchmarks.findings.__main__ import main as write_tests
from tests.convergence.faults.table import table
from vaebench.report import write_contents

ROOT = Path("reports")


def main(root: Path = ROOT) -> None:
    """Write the pages, then the list of them."""
    benchmarks.peers.report.write(root / "peers")
    benchmarks.accuracy.report.write(root / "accuracy")
    if (root / "paper" / "steps.csv").exists():
        benchmarks.paper.page.write(root / "paper")
    table(root / "faults")
    write_tests(root / "findings")
    write_contents(root)


if __name__ == "__main__":
    main()
