"""Four answers about a gradient estimator: is it right, what does it cost, how noisy is it, does it keep the guarantee.

`question` says what is asked and how thoroughly, `right`, `cost`, `noise` and `guarantee` find the answers, `findings`
puts them together. Nothing here draws or writes; `vaebench.report.certificate` does.
"""

from vaebench.experiments.certifying.findings import SECTIONS, Findings, find
from vaebench.experiments.certifying.levels import LEVELS
from vaebench.experiments.certifying.question import Question, ask

__all__ = ["LEVELS", "SECTIONS", "Findings", "Question", "ask", "find"]
