"""The paper's studies end to end, for a few steps, on small batches and files of nobody's photographs.

An arm that was rehearsed in a directory is not rehearsed there again: what was interrupted goes on.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.paper.files import write_celeba, write_cifar100
from benchmarks.paper.timing import Timing, timed
from vaebench.experiments import Measures
from vaebench.experiments.experiment import Experiment
from vaebench.experiments.studies import Study
from vaebench.experiments.trajectory import Trajectory
from vaebench.report import write
from vaebench.report.summarising import summarise

STEPS = 20
ROWS = 24  # photographs in a split
SCALES = ("paper", "paper-celeba")
STUDIES = {
    "paper": ("activations", "samples", "batch", "beta", "optimizers"),
    "paper-celeba": ("activations", "samples"),
}


class Share(NamedTuple):
    """How much of the paper's size is rehearsed.

    Attributes:
        batch: the paper's batch sizes are divided by this.
        seeds: members of each fleet.
        device: "cpu", "cuda", ...
    """

    batch: int
    seeds: int
    device: str = "cpu"


def studies() -> Iterator[tuple[str, str]]:
    """Names and scales of the paper's studies, each data set's by the authors' step sizes and by the theorem's."""
    for data in SCALES:
        for scale in (data, f"{data}-theorem"):
            yield from ((name, scale) for name in STUDIES[data])


def shortened(study: Study, share: Share) -> Study:
    """The study for `STEPS` steps, on a share of every batch.

    Args:
        study: of a preset.
        share: how much of it.

    Returns:
        A study with as many arms; nets, objectives, estimators, optimizers and schedules are as they were.
    """

    def short(one: Experiment) -> Experiment:
        rows = max(1, one.batch_size // share.batch)
        measures = Measures(per_decade=1, replicates=16, rows=1, bound_rows=4, likelihood_samples=20, likelihood_rows=1)
        seeds = one.seeds[: share.seeds]
        return replace(one, steps=STEPS, batch_size=rows, seeds=seeds, measures=measures, device=share.device)

    return replace(study, arms=tuple(arm._replace(experiment=short(arm.experiment)) for arm in study.arms))


def write_files(directory: Path) -> None:
    """Write both data sets."""
    generator = np.random.default_rng(0)
    write_cifar100(directory, ROWS, generator)
    write_celeba(directory, ROWS, generator)


class Rehearsal(NamedTuple):
    """A study that was run for a few steps.

    Attributes:
        page: its report.
        found: what was recorded, by the arm's label.
        timings: of the steps, likewise.
    """

    page: Path
    found: dict[str, Trajectory]
    timings: dict[str, Timing]


def rehearse(study: Study, share: Share, directory: Path, say: Callable[[str], None] = lambda _: None) -> Rehearsal:
    """Run a shortened study on the files in a directory, one arm after the other, and write its report there.

    Args:
        study: of a preset.
        share: how much of it.
        directory: where `write_files` wrote.
        say: told each arm.

    Returns:
        The rehearsal.
    """
    short, found, timings = shortened(study, share), {}, {}
    for arm in short.arms:
        say(f"{study.title}: {arm.label}")
        found[arm.label], timings[arm.label] = timed(arm.experiment, directory)
    known = {arm.hash: found[arm.label] for arm in short.arms}
    summaries = {name: summarise(one) for name, one in known.items()}
    page = write(short, known, summaries, directory / "reports" / short.title)
    return Rehearsal(page, found, timings)
