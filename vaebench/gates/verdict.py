"""What a gate says, and how often it says so wrongly."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scipy import stats

LEVEL = 2e-5  # a gate's false-alarm rate, shared by the comparisons it makes


@dataclass(frozen=True)
class Verdict:
    """The outcome of one gate: what was claimed, what was measured, how sure.

    Attributes:
        claim: what a correct run does, a sentence without its full stop.
        statistic: what was measured; never NaN.
        threshold: the largest statistic that passes.
        passed: whether the claim stands.
        evidence: how it was measured: counts, errors, the worst place; numbers and short strings by name.
        gate: short name of the gate.
        false_alarm: bound on the probability that correct code fails.

    Raises:
        ValueError: if the statistic is NaN.

    >>> print(Verdict("The mean is zero", 7.1, 4.6, False, {"draws": 500}, "mean", 1e-5))
    FAIL mean: The mean is zero; measured 7.1, at most 4.6 allowed (draws 500; a false alarm has p <= 1e-05).
    """

    claim: str
    statistic: float
    threshold: float
    passed: bool
    evidence: Mapping[str, Any] = field(default_factory=dict)
    gate: str = ""
    false_alarm: float = 0.0

    def __post_init__(self):
        if math.isnan(self.statistic):
            raise ValueError(f"The statistic of {self.gate or self.claim!r} is NaN; say what diverged instead.")

    def __str__(self) -> str:
        parts = [f"{name} {_text(value)}" for name, value in self.evidence.items()]
        parts.append(f"a false alarm has p <= {self.false_alarm:.2g}" if self.false_alarm else "no chance involved")
        return (
            f"{'pass' if self.passed else 'FAIL'} {self.gate}: {self.claim}; measured {self.statistic:.4g}, "
            f"at most {self.threshold:.4g} allowed ({'; '.join(parts)})."
        )


def judge(
    gate: str,
    claim: str,
    statistic: float,
    threshold: float,
    false_alarm: float,
    evidence: Mapping[str, Any] | None = None,
) -> Verdict:
    """A verdict by comparison: it passes if the statistic is a number and at most the threshold.

    Args:
        gate: short name.
        claim: what a correct run does.
        statistic: what was measured; NaN, from whatever overflowed, counts as infinite.
        threshold: the largest that passes.
        false_alarm: probability that correct code fails.
        evidence: how it was measured.

    Returns:
        The verdict.
    """
    measured = math.inf if math.isnan(statistic) else float(statistic)
    return Verdict(claim, measured, threshold, measured <= threshold, dict(evidence or {}), gate, false_alarm)


def two_sided(comparisons: int, freedom: float = math.inf) -> float:
    """The threshold for the largest of so many |t| at the gates' joint level (Bonferroni); normal by default."""
    return float(stats.t.isf(LEVEL / (2 * comparisons), freedom))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
