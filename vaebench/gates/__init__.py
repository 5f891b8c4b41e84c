"""Gates: checks that a correct training run passes and a faulty one does not, each with its false-alarm rate."""

from vaebench.gates.verdict import Verdict, judge

__all__ = ["Verdict", "judge"]
