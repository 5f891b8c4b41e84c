"""`python -m benchmarks.findings`: which differences between the arms of the studies their seeds settle.

Every pair of a study's arms is compared in each quantity by Games and Howell's test: Welch's statistic against the
studentized range of as many arms as the study has. A pair is settled if equal arms are as far apart with probability
below 0.05, in any pair of that study and quantity.
"""

import itertools
from pathlib import Path

import pandas as pd

from vaebench.report.answer import RARE, Entry, chance, distance
from vaebench.support.files import write_whole
from vaebench.support.statistics import Estimate

FOLDER = Path("reports/findings")
STUDIES = ("activations", "samples", "batch", "beta", "optimizers", "bbvi")
QUANTITIES = ("|grad|^2", "T_n", "negative bound, test", "log-likelihood, test")
INCOMPARABLE = {("beta", "negative bound, test")}  # bounds of different beta are different functions


def compared(study: str, arms: pd.DataFrame) -> list[dict[str, object]]:
    """A row for every quantity and pair of arms.

    Args:
        study: its name.
        arms: a row an arm, as a report's `arms.csv` has them.

    Returns:
        Difference, its standard error, how many of these it is, the probability and the verdict.
    """
    rows = []
    for quantity in (name for name in QUANTITIES if name in arms and (study, name) not in INCOMPARABLE):
        entries = [
            Entry(str(arm["arm"]), Estimate(arm[quantity], arm[f"{quantity}, standard error"]), int(arm["kept seeds"]))
            for _, arm in arms.iterrows()
        ]
        for first, second in itertools.combinations(entries, 2):
            gap, probability = distance(first, second), chance(first, second, len(entries))
            rows.append(
                {
                    "study": study,
                    "quantity": quantity,
                    "arm": first.label,
                    "other arm": second.label,
                    "other minus arm": f"{second.found.value - first.found.value:.4g}",
                    "standard errors": f"{gap:.3g}",
                    "p": f"{probability:.2g}",
                    "verdict": "settled" if probability < RARE else "not settled",
                }
            )
    return rows


def main(folder: Path = FOLDER) -> None:
    """Write tests.csv from the tables of the studies that are there."""
    known = [name for name in STUDIES if (folder / f"{name}.csv").is_file()]
    rows = [row for name in known for row in compared(name, pd.read_csv(folder / f"{name}.csv"))]
    write_whole(folder / "tests.csv", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode())


if __name__ == "__main__":
    main()
