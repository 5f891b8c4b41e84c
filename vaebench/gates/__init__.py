"""Gates: checks that a correct training run passes and a faulty one does not, each with its false-alarm rate."""

from vaebench.gates.certification import FALSE_ALARM, certify
from vaebench.gates.verdict import Verdict, judge

__all__ = ["FALSE_ALARM", "Verdict", "certify", "judge"]
