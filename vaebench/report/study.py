"""What a report is made from: a study's arms, each with what was recorded of it and what that says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vaebench.experiments.studies import Study
from vaebench.experiments.trajectory import Trajectory
from vaebench.gates.verdict import Verdict
from vaebench.report.bands import Summary

IDLE_LOAD = 0.5  # of a machine on which nothing else runs, beyond the threads of the run itself


@dataclass(frozen=True)
class Result:
    """An arm with its record.

    Attributes:
        label: for people.
        name: for files and anchors, unique in its study.
        hash: of the experiment.
        experiment: as JSON holds it.
        trajectory: what was recorded.
        summary: what that says; None if every seed diverged.
        place: of the arm in its study, from 0; it chooses colour and marker.
    """

    label: str
    name: str
    hash: str
    experiment: Mapping[str, Any]
    trajectory: Trajectory
    summary: Summary | None
    place: int

    @property
    def seeds(self) -> list[int]:
        """All seeds, in order."""
        return sorted({int(seed) for seed in self.trajectory.frame["seed"]})

    @property
    def diverged(self) -> list[Mapping[str, Any]]:
        """Seed, step and value of the members that diverged, the first to do so first."""
        return sorted(self.trajectory.metadata.get("diverged", ()), key=lambda one: (one["step"], one["seed"]))

    @property
    def kept(self) -> int:
        """How many seeds did not diverge: those that the means are over."""
        return len(self.seeds) - len({one["seed"] for one in self.diverged})

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The checks; none if every seed diverged."""
        return self.summary.verdicts if self.summary else ()

    @property
    def warning(self) -> str:
        """What is to be said beside every number of the arm; empty if nothing is."""
        return f"{len(self.seeds) - self.kept} of {len(self.seeds)} seeds diverged" if self.diverged else ""

    @property
    def company(self) -> str:
        """What ran beside it while its seconds were measured, as far as is known; empty if nothing did."""
        load, threads = self.trajectory.metadata.get("load"), self.trajectory.metadata.get("threads")
        if load is None or threads is None:
            return "whether other work ran beside it was not recorded"
        beside = f"measured beside other work: the load average was {load:.1f}, its own share {threads}"
        return beside if load > threads + IDLE_LOAD else ""

    @property
    def marked(self) -> str:
        """The label, with the warning."""
        return f"{self.label} ({self.warning})" if self.warning else self.label


def results(study: Study, trajectories: Mapping[str, Trajectory], summaries: Mapping[str, Summary]) -> list[Result]:
    """Join a study's arms with what was recorded of them, by hash; of an arm all of whose seeds diverged, no summary.

    Returns:
        One result per arm, in the study's order.

    Raises:
        ValueError: if an arm was not recorded or summarised.
    """
    found = []
    for place, arm in enumerate(study.arms):
        if arm.hash not in trajectories:
            raise ValueError(f"Arm {arm.label!r} ({arm.hash}) has no trajectory: run it first, or leave the arm out.")
        name = f"{file_name(arm.label)[:40]}-{file_name(arm.hash)[:8]}"
        trajectory, summary = trajectories[arm.hash], summaries.get(arm.hash)
        found.append(Result(arm.label, name, arm.hash, arm.experiment.to_dict(), trajectory, summary, place))
        if summary is None and found[-1].kept:
            raise ValueError(f"Arm {arm.label!r} ({arm.hash}) has no summary, though not every seed diverged: add it.")
    return found


def file_name(text: str) -> str:
    """A text as a file's name: lower-case letters, digits and hyphens, never empty.

    Returns:
        The name.

    >>> file_name("SoftClip s=0.5 <b>")
    'softclip-s-0-5-b'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"
