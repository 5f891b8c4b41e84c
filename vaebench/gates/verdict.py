"""What a gate says, how often it says so wrongly, and how small an effect it would have found."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vaebench.support.statistics import student_quantile

LEVEL = 2e-5  # a gate's false-alarm rate, shared by the comparisons it makes
POWER = 0.9  # probability with which the smallest effect that is stated would have been found

Outcome = Literal["pass", "fail", "no power"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one gate: what was claimed, what was measured, how sure, and what could have been missed.

    Attributes:
        claim: what a correct run does, a sentence without its full stop.
        statistic: what was measured; never NaN.
        threshold: the largest statistic that passes.
        evidence: how it was measured: counts, errors, the worst place; numbers and short strings by name.
        gate: short name of the gate.
        false_alarm: bound on the probability that correct code fails.
        smallest: the smallest effect that this run would have found with probability 0.9; None where no chance is
            involved or none is stated; infinite where no effect would have been found.
        limit: the largest `smallest` at which passing means something; None for no limit.
        unit: of both, such as "of the gradient" or "nats".

    Raises:
        ValueError: if the statistic or the smallest effect is NaN.

    >>> print(Verdict("The mean is zero", 7.1, 4.6, {"draws": 500}, "mean", 1e-5, 0.02, 0.1, "nats"))
    FAIL mean: The mean is zero; measured 7.1, at most 4.6 allowed; finds 0.02 nats, must find 0.1 (draws 500; a \
false alarm has p <= 1e-05).
    """

    claim: str
    statistic: float
    threshold: float
    evidence: Mapping[str, Any] = field(default_factory=dict)
    gate: str = ""
    false_alarm: float = 0.0
    smallest: float | None = None
    limit: float | None = None
    unit: str = ""

    def __post_init__(self):
        if math.isnan(self.statistic):
            raise ValueError(f"The statistic of {self.gate or self.claim!r} is NaN; say what diverged instead.")
        if self.smallest is not None and math.isnan(self.smallest):
            raise ValueError(f"The smallest effect of {self.gate or self.claim!r} is NaN; infinite means no power.")

    @property
    def outcome(self) -> Outcome:
        """The claim fails, or it passes, or passing would say nothing, since a large fault would pass as well."""
        if not self.statistic <= self.threshold:
            return "fail"
        blind = self.smallest is not None and self.limit is not None and not self.smallest <= self.limit
        return "no power" if blind else "pass"

    @property
    def passed(self) -> bool:
        """Whether the claim stands and the run could have shown otherwise."""
        return self.outcome == "pass"

    @property
    def resolution(self) -> str:
        """The smallest effect and the limit in words; empty if none is stated.

        >>> Verdict("it holds", 1.0, 2.0, smallest=0.0123456, limit=0.1, unit="of the gradient").resolution
        'finds 0.01235 of the gradient, must find 0.1'
        """
        if self.smallest is None:
            return ""
        found = f"finds {self.smallest:.4g} {self.unit}".rstrip()
        return found if self.limit is None else f"{found}, must find {self.limit:.4g}"

    def to_dict(self) -> dict[str, Any]:
        """The verdict by field, with its outcome; for JSON."""
        return {
            "gate": self.gate,
            "claim": self.claim,
            "statistic": self.statistic,
            "threshold": self.threshold,
            "outcome": self.outcome,
            "passed": self.passed,
            "false_alarm": self.false_alarm,
            "smallest": self.smallest,
            "limit": self.limit,
            "unit": self.unit,
            "evidence": dict(self.evidence),
        }

    def __str__(self) -> str:
        parts = [f"{name} {_text(value)}" for name, value in self.evidence.items()]
        parts.append(f"a false alarm has p <= {self.false_alarm:.2g}" if self.false_alarm else "no chance involved")
        mark = {"pass": "pass", "fail": "FAIL", "no power": "NO POWER"}[self.outcome]
        resolution = f"; {self.resolution}" if self.resolution else ""
        return (
            f"{mark} {self.gate}: {self.claim}; measured {self.statistic:.4g}, "
            f"at most {self.threshold:.4g} allowed{resolution} ({'; '.join(parts)})."
        )


def judge(
    gate: str,
    claim: str,
    statistic: float,
    threshold: float,
    false_alarm: float,
    evidence: Mapping[str, Any] | None = None,
    *,
    smallest: float | None = None,
    limit: float | None = None,
    unit: str = "",
) -> Verdict:
    """A verdict by comparison: the claim stands if the statistic is a number and at most the threshold.

    Args:
        gate: short name.
        claim: what a correct run does.
        statistic: what was measured; NaN, from whatever overflowed, counts as infinite.
        threshold: the largest that passes.
        false_alarm: probability that correct code fails.
        evidence: how it was measured.
        smallest: the smallest effect that would have been found with probability 0.9; NaN counts as infinite.
        limit: the largest such effect at which passing means something.
        unit: of both.

    Returns:
        The verdict.
    """
    measured = math.inf if math.isnan(statistic) else float(statistic)
    found = None if smallest is None else math.inf if math.isnan(smallest) else float(smallest)
    return Verdict(claim, measured, threshold, dict(evidence or {}), gate, false_alarm, found, limit, unit)


def overall(verdicts: Iterable[Verdict]) -> Outcome:
    """What several gates say together: "fail" if one fails, else "no power" if one has none, else "pass".

    Args:
        verdicts: of any gates.

    Returns:
        The outcome.

    >>> strong, weak = judge("a", "", 1.0, 2.0, 0.0), judge("b", "", 1.0, 2.0, 0.0, smallest=3.0, limit=2.0)
    >>> overall([strong]), overall([strong, weak]), overall([strong, weak, judge("c", "", 3.0, 2.0, 0.0)])
    ('pass', 'no power', 'fail')
    """
    outcomes = {verdict.outcome for verdict in verdicts}
    return "fail" if "fail" in outcomes else "no power" if "no power" in outcomes else "pass"


def two_sided(comparisons: int, freedom: float = math.inf) -> float:
    """The threshold for the largest of so many |t| at the gates' joint level (Bonferroni); normal by default."""
    return -student_quantile(LEVEL / (2 * comparisons), freedom)


def detectable(threshold: float, freedom: float = math.inf) -> float:
    """How many standard errors an effect must measure to exceed a threshold for |t| with probability 0.9.

    A true effect of so many standard errors shifts t by as much; the other tail is left out, which is conservative.

    Args:
        threshold: that |t| must exceed.
        freedom: degrees of freedom of the standard error; normal by default.

    Returns:
        The threshold plus the 0.9 quantile of t.

    >>> round(detectable(2.0), 4)
    3.2816
    """
    return threshold + student_quantile(POWER, freedom)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
