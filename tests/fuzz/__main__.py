"""`python -m tests.fuzz [NUMBER [SEED]]`: so many mutations of each kind of file, counted by outcome.

Then what is no file at all is put in the place of each.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.fuzz.harness import OUTCOMES, fuzz
from tests.fuzz.places import misplace
from tests.fuzz.subjects import subjects

DEFAULTS = ["400", "0"]


def main() -> None:
    """Print a table, then every fault."""
    number, seed = map(int, (sys.argv[1:] + DEFAULTS[len(sys.argv) - 1 :])[:2])
    torch.set_num_threads(1)
    faults = []
    sys.stdout.write(f"| file | {' | '.join(OUTCOMES)} |\n|---|{'---:|' * len(OUTCOMES)}\n")
    with TemporaryDirectory() as folder:
        for subject in subjects(Path(folder)):
            counts, found = fuzz(subject, number, seed)
            others, more = misplace(subject)
            counts += others
            faults += found + more
            sys.stdout.write(f"| {subject.name} | {' | '.join(str(counts[name]) for name in OUTCOMES)} |\n")
            sys.stdout.flush()
    sys.stdout.write("".join(f"{line}\n" for line in faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
