"""The numbers of the smoke report, as they were: `python -m tests.smoke` writes them anew."""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from vaebench.experiments import run
from vaebench.experiments.presets import preset
from vaebench.report.study import results
from vaebench.report.summarising import summarise
from vaebench.report.tables import csv_files

KEPT = Path(__file__).with_name("reference") / "activations-smoke"
MEASURED = ["seconds per step", "load"]  # what is not the same on every run


def tables() -> dict[str, pd.DataFrame]:
    """The tables of the report on `activations` at the smoke scale, made now."""
    study = preset("activations", "smoke")
    with TemporaryDirectory() as folder:
        found = {arm.hash: run(arm.experiment, Path(folder)) for arm in study.arms}
    known = results(study, found, {name: summarise(one) for name, one in found.items()})
    return {name: read(content) for name, content in csv_files(known).items()}


def read(content: bytes) -> pd.DataFrame:
    """A table without what differs from run to run."""
    return pd.read_csv(BytesIO(content)).drop(columns=MEASURED, errors="ignore")


if __name__ == "__main__":
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    for name, table in tables().items():
        table.to_csv(KEPT / name, index=False, float_format="%.12g", lineterminator="\n")
