"""Gates: checks that a correct training run passes and a faulty one does not, each with its false-alarm rate."""

from vaebench.gates.certification import FALSE_ALARM, certify
from vaebench.gates.verdict import Outcome, Verdict, judge, overall

__all__ = ["FALSE_ALARM", "Outcome", "Verdict", "certify", "judge", "overall"]
