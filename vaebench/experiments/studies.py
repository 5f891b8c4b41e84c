"""Studies: a question, and the experiments that answer it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from vaebench.experiments.experiment import Arm, Experiment
from vaebench.support.files import read_json, write_whole
from vaebench.support.registry import nearest
from vaebench.support.texts import file_like_name, printable, sentence, shown

KEPT = "kept by vaebench"  # marks a study's file that may be replaced
RESERVED = {"index.html"}
MOST_ARMS = 10_000


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
        file_like_name("name of a study", self.name)
        file_like_name("scale of a study", self.scale)
        file_like_name("name of a study with its scale", self.title)
        if self.title.lower() in RESERVED:
            raise ValueError(f"The name of a study cannot be {self.title!r}, which is a file of every report.")
        for word in ("question", "axis"):
            printable(f"{word} of a study", getattr(self, word))
        if len(self.arms) > MOST_ARMS:
            raise ValueError(f"A study has at most {MOST_ARMS:,} experiments, got {len(self.arms):,}.")
        labels = [printable("label of an experiment", arm.label) for arm in self.arms]
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
        """The study that `to_dict` wrote; what is missing or out of range is a ValueError."""
        words = _fields(plain, "study", ("name", "scale", "question", "axis", "arms"), (KEPT,))
        if not isinstance(words["arms"], list):
            raise ValueError(f"The arms of a study must be a list, got {shown(words['arms'])}.")
        arms = []
        for one in words["arms"]:
            arm = _fields(one, "arm of a study", ("label", "experiment"), ("hash",))
            arms.append(Arm(arm["label"], _experiment(arm["label"], arm["experiment"])))
        return Study(words["name"], words["scale"], words["question"], words["axis"], tuple(arms))

    def with_settings(self, **settings: Any) -> "Study":
        """The same study with some settings of every experiment replaced, such as `device` or `seeds`."""
        changed = tuple(Arm(arm.label, replace(arm.experiment, **settings)) for arm in self.arms)
        return replace(self, arms=changed)


def _fields(plain: Any, what: str, needed: tuple[str, ...], allowed: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping):
        raise ValueError(f"A {what} must be an object, got {shown(plain)}.")
    for name in needed:
        if name not in plain:
            raise ValueError(f"The {what} cannot be read: {name!r} is missing or of the wrong kind.")
    for name in plain:
        if name not in (*needed, *allowed):
            raise ValueError(f"A {what} has no field {shown(name)}; it has {', '.join(needed)}.")
    return plain


def _experiment(label: object, plain: Any) -> Experiment:
    try:
        return Experiment.from_dict(plain)
    except ValueError as refusal:
        raise ValueError(f"{shown(label)}: {refusal}") from None


def read_study(path: Path) -> Study:
    """Read a study, or a single experiment, from a JSON file.

    Returns:
        The study; an experiment becomes one of a single arm, named after the file.

    Raises:
        ValueError: if the file holds neither.
    """
    plain = read_json(path)
    if not isinstance(plain, Mapping):
        raise ValueError(f"{path} must hold an experiment or a study, an object, got {shown(plain)}.")
    try:
        if "arms" in plain:
            return Study.from_dict(plain)
        arm = Arm(file_like_name("name of a file with an experiment", path.stem), Experiment.from_dict(plain))
    except ValueError as refusal:
        raise ValueError(f"{path}: {refusal}") from None
    return Study(path.stem, "default", f"What does the experiment {path.stem} do?", "experiment", (arm,))


def keep_study(study: Study, root: Path) -> Path:
    """Note in a directory of results which of them answer a study.

    Returns:
        The file.

    Raises:
        ValueError: if a file of that name is there and was not written by this function.
    """
    path, plain = root / f"{study.title}.json", study.to_dict()
    if path.exists():
        there = read_json(path) if path.is_file() else None
        if there == plain:
            return path  # the user's own file, in the directory of the results
        if not (isinstance(there, Mapping) and there.get(KEPT) is True):
            raise ValueError(f"{path} is there and is not a note of vaebench's: choose another --results, or move it.")
    write_whole(path, json.dumps({KEPT: True} | plain, indent=2).encode() + b"\n")
    return path


class FoundStudies(NamedTuple):
    """What a directory of results holds.

    Attributes:
        studies: by title.
        broken: what cannot be read: files by name, each with a sentence that says why.
    """

    studies: list[Study]
    broken: dict[str, str]


def find_studies(root: Path, titles: Sequence[str] | None) -> FoundStudies:
    """Studies of which results are kept, or those of some titles.

    Returns:
        The studies, by title. A file that holds none, or one of another title, is listed as broken.

    Raises:
        LookupError: if there is none of a title.
        ValueError: if one that was asked for holds no study.
        OSError: if it cannot be read.
    """
    known = {path.stem: path for path in sorted(root.glob("*.json")) if not path.name.startswith(".")}
    for title in titles or ():
        if title not in known:
            hint = nearest(title, known) if known else "."
            raise LookupError(f"There is no study {shown(title)} in {root}{hint} Run it first.")
    found = FoundStudies([], {})
    for title in titles or known:
        try:
            study = read_study(known[title])
            if study.title != title:
                raise ValueError(f"{known[title]} holds the study {study.title!r}: name the file {study.title}.json.")
            found.studies.append(study)
        except (ValueError, OSError) as trouble:
            if titles:
                raise
            found.broken[known[title].name] = sentence(trouble)
    return found
