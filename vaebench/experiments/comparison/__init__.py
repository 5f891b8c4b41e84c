"""What changed between two measurements: test reports, runs, or commits. Rows of data; nothing is printed.

`claims` reads reports of pytest-benchmark, `runs` trajectories, `commits` the results that asv keeps;
`sources` finds out which of them two names on a command line mean.
"""

from vaebench.experiments.comparison.change import FAILURES, KINDS, Change, on_purpose
from vaebench.experiments.comparison.sources import compare

__all__ = ["FAILURES", "KINDS", "Change", "compare", "on_purpose"]
