"""Reports: pages that say what was asked of a study's experiments, what came out, and whether to trust it."""

from vaebench.report.index import write_index
from vaebench.report.study import Arm, Study
from vaebench.report.writing import write

__all__ = ["Arm", "Study", "write", "write_index"]
