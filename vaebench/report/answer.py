"""What came out of a study and whether to trust it, in sentences made from its numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy import stats

from vaebench.report.study import Result, Study
from vaebench.report.wording import estimate, number, several, share, symbol
from vaebench.support.statistics import Estimate

CLEAR_DIFFERENCE = 2.0  # standard errors
RARE = 0.05
QUANTITIES = {
    "Convergence": ("|grad|^2", "T_n"),
    "Bound on test data": ("negative bound, test",),
}
SPOKEN = {
    "|grad|^2": "The final squared gradient ‖∇f‖², zero at a stationary point,",
    "T_n": "Tₙ, the squared gradient averaged over the run,",
    "negative bound, test": "The negative bound on test data, in nats, where lower is better,",
}


class Sentence(NamedTuple):
    """What it is about, and what it says."""

    about: str
    text: str


TRIAL = Sentence(
    "No conclusion",
    "This is a smoke run, a trial of the machinery on a few steps: its numbers answer nothing. Run the study at its "
    "default scale for an answer.",
)


class Entry(NamedTuple):
    """One arm's estimate of a quantity, a mean over so many seeds."""

    label: str
    found: Estimate
    seeds: int


@dataclass(frozen=True)
class Trust:
    """Whether to trust a report.

    Attributes:
        state: "good", "bad" or "unknown".
        headline: how many checks passed.
        reasons: what speaks against it; arm's name (or None) and a sentence.
        checks: how many were made.
        failed: how many failed.
        chance: bound on the probability that a correct study fails one.
    """

    state: str
    headline: str
    reasons: list[tuple[str | None, str]]
    checks: int
    failed: int
    chance: float


def is_trial(study: Study) -> bool:
    """Whether a study only tries the machinery: a smoke run is too short for any conclusion."""
    return study.scale == "smoke"


def found_in(study: Study, results: Sequence[Result]) -> list[Sentence]:
    """Sentences of what came out of a study: the answers, or of a trial that there are none."""
    return [TRIAL] if is_trial(study) else answers(results)


def answers(results: Sequence[Result]) -> list[Sentence]:
    """The answer: best and worst arm, and whether seeds could make the difference; of one arm, what it reached.

    Returns:
        One sentence per quantity that was measured.
    """
    found = []
    for about, names in QUANTITIES.items():
        for name in names:
            entries = [
                Entry(one.marked, value, one.kept)
                for one in results
                if one.summary and math.isfinite((value := one.summary.final.get(name, Estimate(math.nan, 0))).value)
            ]
            if entries:
                found.append(Sentence(about, f"{SPOKEN[name]} {_compare(entries, len(results))}"))
                break
    return found or [Sentence("Nothing to compare", "No arm has a finite result.")]


def _compare(entries: list[Entry], arms: int) -> str:
    entries = sorted(entries, key=lambda entry: entry.found.value)
    best, worst = entries[0], entries[-1]
    if len(entries) == 1:
        alone = f" with {best.label}, the only arm with a finite result" if arms > 1 else ""
        return f"is {estimate(best.found)}{alone}."
    text = f"is lowest with {best.label}, {estimate(best.found)}, and highest with {worst.label}, "
    text += estimate(worst.found)
    gap = distance(best, worst)
    if math.isnan(gap):
        return f"{text}. One seed has no standard error: whether this is chance cannot be said."
    text += f": {gap:.1f} standard errors apart"
    if gap <= CLEAR_DIFFERENCE:
        return f"{text}, which chance explains. These seeds do not tell the arms apart."
    rate = chance(best, worst, len(entries))
    if rate >= RARE:
        return f"{text}, but {len(entries)} equal arms lie as far apart in {share(rate)} of studies: not settled."
    text = f"{text}, a clear difference ({len(entries)} equal arms lie as far apart in {share(rate)} of studies)."
    near = [entry.label for entry in entries[1:] if not distance(best, entry) > CLEAR_DIFFERENCE]
    return f"{text} Within {CLEAR_DIFFERENCE:.0f} standard errors of the best: {several(near)}." if near else text


def distance(first: Entry, second: Entry) -> float:
    """How many standard errors of their difference two estimates are apart, taken as independent; may be NaN."""
    gap, error = abs(first.found.value - second.found.value), math.hypot(first.found.error, second.found.error)
    return gap / error if error != 0 else (math.inf if gap else 0.0)


def chance(first: Entry, second: Entry, arms: int) -> float:
    """Probability that the extremes of so many equal arms are as far apart (Games & Howell, 1976).

    Returns:
        The upper tail of the studentized range, with Welch's degrees of freedom.
    """
    errors = [(entry.found.error**2, entry.seeds - 1) for entry in (first, second)]
    total = sum(error for error, _ in errors)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(error**2 / max(1, seeds) for error, seeds in errors)
    return float(stats.studentized_range.sf(distance(first, second) * math.sqrt(2), arms, freedom))


def trust(results: Sequence[Result]) -> Trust:
    """Count the checks, and name what speaks against the numbers.

    Returns:
        The outcome; good only if there were checks, all passed and nothing diverged.
    """
    verdicts = [(one, verdict) for one in results for verdict in one.verdicts]
    failed = [(one, verdict) for one, verdict in verdicts if verdict.outcome == "fail"]
    blind = sum(verdict.outcome == "no power" for _, verdict in verdicts)
    reasons: list[tuple[str | None, str]] = [(one.name, _divergence(one)) for one in results if one.diverged]
    reasons += [
        (
            one.name,
            f"{one.label} fails “{verdict.gate}”. Claimed: {symbol(verdict.claim)}. "
            f"Measured {number(verdict.statistic)}, at most {number(verdict.threshold)} allowed.",
        )
        for one, verdict in failed
    ]
    reasons += [(None, note) for note in _notes(results)]
    lost, runs = sum(len(one.seeds) - one.kept for one in results), sum(len(one.seeds) for one in results)
    passed = (
        f"{len(verdicts) - len(failed) - blind} of {len(verdicts)} checks passed" if verdicts else "No checks were made"
    )
    words = [
        passed,
        f"{len(failed)} FAILED" if failed else "",
        f"{blind} without power" if blind else "",
        f"{lost} of {runs} runs diverged" if lost else "",
    ]
    state = "bad" if failed or lost else "good" if verdicts and not blind else "unknown"
    rate = sum(verdict.false_alarm for _, verdict in verdicts)
    return Trust(state, ", ".join(filter(None, words)), reasons, len(verdicts), len(failed), rate)


def _divergence(one: Result) -> str:
    first = one.diverged[0]
    text = f"{one.label}: {one.warning}, first seed {first['seed']}, seen at step {first['step']:,}. "
    return text + (f"Its means are over the other {one.kept}." if one.kept else "It has no numbers.")


def _notes(results: Iterable[Result]) -> list[str]:
    commits = sorted({str(one.trajectory.metadata.get("commit") or "unknown") for one in results})
    notes = [f"The arms were run at different commits: {several(commits)}."] if len(commits) > 1 else []
    if any(commit.endswith("+") for commit in commits):
        notes.append("The code had been changed since the commit that is recorded.")
    return notes
