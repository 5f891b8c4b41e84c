"""`certify`: four answers about an estimator, as an object and as a directory of files."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor, nn

from vaebench.experiments.blackboxes import Claim
from vaebench.experiments.blackboxes.certifying import find as find_of_box
from vaebench.experiments.certifying import Findings, ask, find
from vaebench.gates.verdict import Outcome, Verdict
from vaebench.gradients import Estimator, Objective
from vaebench.report.certificate.figures import FIGURES
from vaebench.report.certificate.markdown import badge, markdown
from vaebench.report.certificate.numbers import DIGITS, document, frame
from vaebench.report.certificate.page import page, summary
from vaebench.report.certificate.words import headline
from vaebench.report.study import file_name
from vaebench.report.writing import names_beside, replaced

MARK = "certificate.json"


@dataclass(frozen=True)
class Certificate:
    """What was found out about an estimator.

    Attributes:
        findings: everything, as it was measured.
    """

    findings: Findings

    @property
    def verdicts(self) -> list[Verdict]:
        """Of all gates."""
        return self.findings.verdicts

    @property
    def outcome(self) -> Outcome:
        """Of all gates together: "pass", "fail" or "no power"."""
        return self.findings.outcome

    @property
    def passed(self) -> bool:
        """Whether every gate stands and could have shown otherwise."""
        return self.outcome == "pass"

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every number, one a row; see `vaebench.report.certificate.numbers.frame`."""
        return frame(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """What certificate.json holds."""
        return document(self.findings)

    def figure(self, name: str) -> Figure:
        """One of the page's figures: gates, cost, noise, snr, tradeoff, theory or decay.

        Args:
            name: which.

        Returns:
            A matplotlib Figure.
        """
        return FIGURES[name](self.findings)

    def markdown(self) -> str:
        """For a comment on a pull request."""
        return markdown(self.findings)

    def save(self, directory: str | os.PathLike[str], parquet: bool = False) -> Path:
        """Write index.html, certificate.json, certificate.md, numbers.csv and badge.svg, in place of an earlier one.

        Args:
            directory: of the certificate; is made.
            parquet: also write numbers.parquet, which needs the extra "parquet".

        Returns:
            The path of index.html.

        Raises:
            ValueError: if the directory holds something other than a certificate, or "parquet" is not installed.
        """
        directory = Path(directory)
        require_place(directory)
        if parquet:
            require_parquet()
        made = {
            "index.html": page(self.findings),
            MARK: json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False) + "\n",
            "certificate.md": self.markdown(),
            "numbers.csv": self.frame.to_csv(index=False, lineterminator="\n", float_format=f"%.{DIGITS}g"),
            "badge.svg": badge(self.findings),
        }
        directory.parent.mkdir(parents=True, exist_ok=True)
        with replaced(directory) as temporary:
            temporary.mkdir()
            for name, text in made.items():
                (temporary / name).write_text(text, encoding="utf-8")
            if parquet:
                self.frame.to_parquet(temporary / "numbers.parquet", index=False)
        return directory / "index.html"

    @property
    def file_name(self) -> str:
        """The estimator's name as that of a directory."""
        return file_name(self.findings.question.name)

    def __str__(self) -> str:
        return headline(self.findings)

    def _repr_html_(self) -> str:
        """For a notebook: the sentence and the four answers."""
        return summary(self.findings)


def require_place(directory: Path) -> None:
    """Refuse a directory that a certificate cannot be written to; afterwards everything is as it was.

    Args:
        directory: of the certificate; it need not exist.

    Raises:
        ValueError: if it holds something other than a certificate, or files cannot be written beside it.
    """
    missing: list[Path] = []
    try:
        empty = directory.is_dir() and not any(directory.iterdir())
        free = not directory.exists() or empty or (directory / MARK).is_file()
        missing = [one for one in directory.parents if not one.exists()]
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary, _ = names_beside(directory)
        temporary.mkdir(exist_ok=True)
        shutil.rmtree(temporary)
    except OSError as refusal:
        why = f"Nothing can be written to {directory.parent} ({refusal.strerror}); choose another."
        raise ValueError(why) from None
    finally:
        for one in missing:
            if one.exists():
                one.rmdir()
    if not free:
        raise ValueError(f"{directory} holds something other than a certificate: choose another directory.")


def require_parquet() -> None:
    """Refuse to write numbers.parquet where pyarrow is missing.

    Raises:
        ValueError: if so.
    """
    if find_spec("pyarrow") is None:
        raise ValueError("numbers.parquet needs pyarrow, which is not installed: pip install 'vaebench[parquet]'.")


def certify(
    estimator: Estimator,
    model: nn.Module | None = None,
    data: Tensor | None = None,
    objective: Objective | None = None,
    *,
    level: str = "default",
    optimizer: str = "sgd",
    scale: float = 0.01,
    batch_size: int = 8,
    seed: int = 0,
    name: str | None = None,
    model_name: str | None = None,
    progress: Callable[[str, str], None] | None = None,
) -> Certificate:
    """Four answers about an estimator: is it right, what does it cost, how noisy is it, does it keep the guarantee.

    >>> from vaebench.gradients import pathwise
    >>> certificate = certify(pathwise, level="fast")
    >>> certificate.outcome
    'pass'

    Args:
        estimator: under test, (model, x, noise, objective) -> surrogate (B,).
        model: one's own, in any dtype; default the linear VAE.
        data: (N, *event), for the model.
        objective: the bound whose gradient is claimed; default the ELBO with one sample.
        level: "fast" (seconds), "quick" (a minute) or "default" (ten minutes on two cores).
        optimizer: of the runs.
        scale: C of the steps C / sqrt(n) on one's own model.
        batch_size: B.
        seed: of everything random.
        name: of the estimator; default its own.
        model_name: of the model; default its class.
        progress: called with a section and a line of text when something begins.

    Returns:
        The certificate.
    """
    question = ask(
        estimator, model, data, objective,
        name=name, model_name=model_name, level=level,
        optimizer=optimizer, scale=scale, batch_size=batch_size, seed=seed,
    )  # fmt: skip
    return Certificate(find(question, progress or _silent))


def certify_box(
    claim: Claim,
    x: np.ndarray,
    *,
    name: str = "black box",
    level: str = "default",
    scale: float = 0.01,
    seed: int = 0,
    progress: Callable[[str, str], None] | None = None,
) -> Certificate:
    """The same about a black box: another library's loss and gradient, held against a trusted gradient of its bound.

    Args:
        claim: of `vaebench.experiments.blackboxes`: the box, what it is held against, and the bound.
        x: rows (B, *event), all of which make every batch.
        name: of the box.
        level: "fast", "quick" or "default".
        scale: C of the steps C / sqrt(n).
        seed: of everything random.
        progress: called with a section and a line of text when something begins.

    Returns:
        The certificate.
    """
    found = find_of_box(claim, x, name=name, level=level, scale=scale, seed=seed, progress=progress or _silent)
    return Certificate(found)


def _silent(section: str, line: str) -> None:
    """No progress."""
