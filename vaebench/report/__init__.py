"""Reports: pages that say what was asked of a study's experiments, what came out, and whether to trust it."""

from vaebench.report.index import write_contents, write_index
from vaebench.report.writing import write

__all__ = ["write", "write_contents", "write_index"]
