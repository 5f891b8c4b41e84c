"""Gates: checks that a correct training run passes and a faulty one does not, each with its false-alarm rate.

`run_gates` runs all that apply; `contract` has the short checks for the tests of one estimator or model.
"""

from vaebench.gates.certification import FALSE_ALARM, run_gates
from vaebench.gates.contract import check_estimator, check_model
from vaebench.gates.reference import Reference, exact_reference
from vaebench.gates.running import Stage
from vaebench.gates.verdict import Outcome, Verdict, judge, overall

__all__ = [
    "FALSE_ALARM",
    "Outcome",
    "Reference",
    "Stage",
    "Verdict",
    "check_estimator",
    "check_model",
    "exact_reference",
    "judge",
    "overall",
    "run_gates",
]
