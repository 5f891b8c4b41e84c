"""All four answers together, and the order in which they are found."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vaebench.experiments.certifying.cost import Cost, measure_cost
from vaebench.experiments.certifying.guarantee import Guarantee, measure_guarantee
from vaebench.experiments.certifying.noise import Noise, measure_noise
from vaebench.experiments.certifying.question import Question
from vaebench.experiments.certifying.right import Judged, judge_all, warm_point
from vaebench.experiments.running import commit
from vaebench.experiments.trajectory import environment
from vaebench.gates.verdict import Outcome, Verdict, overall

UNKNOWN_COMMIT = "not in a repository"
Progress = Callable[[str, str], None]
SECTIONS = {"right": "Is it right?", "cost": "What does it cost?", "noise": "How noisy?", "guarantee": "Guarantee?"}


@dataclass(frozen=True)
class Findings:
    """Everything that was found out.

    Attributes:
        question: what was asked.
        judged: verdicts of all gates, by place.
        cost: FLOPs, operations, bytes and times.
        noise: variances and signal-to-noise ratios.
        guarantee: runs beside theory, and on one's own model.
        left_out: what was not measured, and why.
        about: commit, machine, versions, date.
        seconds: wall clock of each section.
    """

    question: Question
    judged: tuple[Judged, ...]
    cost: Cost
    noise: Noise
    guarantee: Guarantee
    left_out: tuple[str, ...]
    about: dict[str, Any]
    seconds: dict[str, float]

    @property
    def verdicts(self) -> list[Verdict]:
        """Of all gates."""
        return [one.verdict for one in self.judged]

    @property
    def outcome(self) -> Outcome:
        """Of all gates together; "no power" also where no gate could be run."""
        return overall(self.verdicts) if self.judged else "no power"

    @property
    def made_by(self) -> str:
        """Which vaebench measured: its version, and its commit where it runs in a repository."""
        version, commit = self.about.get("versions", {}).get("vaebench", ""), str(self.about["commit"])
        if commit == UNKNOWN_COMMIT:
            return f"vaebench {version}".strip()
        return f"vaebench {version}, commit {commit[:12]}{', changed since' if commit.endswith('+') else ''}"


def find(question: Question, progress: Progress) -> Findings:
    """Find all four answers.

    Args:
        question: what is asked.
        progress: called with a section's name and a line of text when something begins.

    Returns:
        The findings.
    """
    seconds: dict[str, float] = {}

    def section(name: str, run: Callable[[Callable[[str], None]], Any]) -> Any:
        begun = time.perf_counter()
        found = run(lambda line: progress(name, line))
        seconds[name] = time.perf_counter() - begun
        return found

    judged, left_out = section("right", lambda say: judge_all(question, say))
    cost = section("cost", lambda say: measure_cost(question, say))
    noise = section("noise", lambda say: measure_noise(question, warm_point(question), say))
    guarantee = section("guarantee", lambda say: measure_guarantee(question, say))
    everything = (*left_out, *cost.left_out, *noise.left_out, *guarantee.left_out)
    return Findings(question, tuple(judged), cost, noise, guarantee, everything, about(question), seconds)


def about(question: Question) -> dict[str, Any]:
    """Where and when: commit, versions, platform, processor, device, threads, date."""
    like = next(question.model.parameters())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit() or UNKNOWN_COMMIT,
        "processor": _processor(),
        "dtype": str(like.dtype).removeprefix("torch."),
    } | environment(like.device)


def _processor() -> str:
    """Its name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()
