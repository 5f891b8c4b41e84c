"""Studies: a question, and the experiments that answer it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaebench.experiments.experiment import Arm, Experiment
from vaebench.support.files import write_whole


@dataclass(frozen=True)
class Study:
    """A question, and the experiments that answer it.

    Attributes:
        name: of the preset or file.
        scale: "smoke", "default", "paper", or another word.
        question: what is asked, one sentence.
        axis: what varies.
        arms: the experiments, by distinct labels.

    Raises:
        ValueError: if there are no arms, or two of one label.
    """

    name: str
    scale: str
    question: str
    axis: str
    arms: tuple[Arm, ...]

    def __post_init__(self):
        labels = [arm.label for arm in self.arms]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"A study needs experiments with distinct labels, got {labels}.")

    @property
    def title(self) -> str:
        """Name and scale, as files are called."""
        return self.name if self.scale == "default" else f"{self.name}-{self.scale}"

    def to_dict(self) -> dict[str, Any]:
        """The study as a JSON object."""
        words = {name: getattr(self, name) for name in ("name", "scale", "question", "axis")}
        arms = [{"label": arm.label, "experiment": arm.experiment.to_dict()} for arm in self.arms]
        return words | {"arms": arms}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> "Study":
        """The study that `to_dict` wrote.

        Args:
            plain: the JSON object.

        Returns:
            The study.

        Raises:
            ValueError: if something is missing or out of range.
        """
        try:
            arms = tuple(Arm(arm["label"], Experiment.from_dict(arm["experiment"])) for arm in plain["arms"])
            return Study(plain["name"], plain["scale"], plain["question"], plain["axis"], arms)
        except (KeyError, TypeError) as missing:
            raise ValueError(f"The study cannot be read: {missing} is missing or of the wrong kind.") from None

    def with_settings(self, **settings: Any) -> "Study":
        """The same study with some settings of every experiment replaced, such as `device` or `seeds`."""
        changed = tuple(Arm(arm.label, replace(arm.experiment, **settings)) for arm in self.arms)
        return replace(self, arms=changed)


def read_study(path: Path) -> Study:
    """Read a study, or a single experiment, from a JSON file.

    Args:
        path: of the file.

    Returns:
        The study; an experiment becomes one of a single arm, named after the file.

    Raises:
        ValueError: if the file holds neither.
    """
    try:
        plain = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(plain, Mapping):
        raise ValueError(f"{path} must hold an experiment or a study, an object, got {type(plain).__name__}.")
    if "arms" in plain:
        return Study.from_dict(plain)
    arm = Arm(path.stem, Experiment.from_dict(plain))
    return Study(path.stem, "default", f"What does the experiment {path.stem} do?", "experiment", (arm,))


def keep_study(study: Study, root: Path) -> Path:
    """Note in a directory of results which of them answer a study.

    Args:
        study: the study.
        root: of the results.

    Returns:
        The file.
    """
    path = root / f"{study.title}.json"
    write_whole(path, json.dumps(study.to_dict(), indent=2).encode() + b"\n")
    return path


def find_studies(root: Path, titles: Sequence[str] | None) -> list[Study]:
    """Studies of which results are kept.

    Args:
        root: of the results.
        titles: which; default all.

    Returns:
        The studies, by title.

    Raises:
        LookupError: if there is none of a title.
    """
    known = {path.stem: path for path in sorted(root.glob("*.json"))}
    for title in titles or ():
        if title not in known:
            there = ", ".join(known) or "none"
            raise LookupError(f"There is no study {title!r} in {root}; there: {there}. Run it first.")
    return [read_study(known[title]) for title in titles or known]
