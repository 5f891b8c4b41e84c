"""`python -m benchmarks.paper`: rehearse the paper's studies, time their steps, and write how long the whole takes.

What was rehearsed in the directory is not rehearsed again.
"""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.paper import page
from benchmarks.paper.rehearsal import STUDIES, Share, rehearse, write_files
from vaebench.experiments.presets import preset

REPORTS = Path("reports/paper")


def say(line: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> None:
    """Rehearse every study on one device, then write the table and the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description="Rehearse the paper's studies.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--directory", type=Path, default=Path(".paper"), help="of the files and of what is finished")
    parser.add_argument("--batch", type=int, default=8, help="divide batch sizes by this; 1 is the paper's size")
    parser.add_argument("--seeds", type=int, default=1, help="members of a fleet; the paper has 5")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cpu":
        torch.set_num_threads(1)
    share = Share(chosen.batch, chosen.seeds, chosen.device)
    write_files(chosen.directory)
    for scale, names in STUDIES.items():
        for name in names:
            study = preset(name, scale)
            measured = page.rows(study, share, rehearse(study, share, chosen.directory, say))
            page.keep(REPORTS / "steps.csv", measured)
            page.write(REPORTS)


if __name__ == "__main__":
    main()
