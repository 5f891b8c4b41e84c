"""Trajectories: the record of one experiment, kept in one file that is either whole or not there.

The first line is a JSON header, after "# "; the rest is CSV with floats in full precision. The header holds the
metadata, the columns' types, how many values are not finite, and a digest of the CSV. One file, because a
rename replaces one file at a time.
"""

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vaebench.support.files import write_whole
from vaebench.training.records import Checkpoint

FORMAT = 1
LIBRARIES = ("vaebench", "torch", "numpy", "pandas", "scipy")
KINDS = {"i": "int64", "u": "int64", "f": "float64", "b": "bool"}
READERS = {"int64": int, "float64": float, "bool": "True".__eq__, "object": str}


@dataclass(frozen=True)
class Trajectory:
    """What an experiment measured, and what it was.

    Attributes:
        metadata: experiment, versions, commit, device, diverged; anything that JSON holds, and NaN or infinity.
        frame: one row per checkpoint and seed; columns of numbers, booleans or strings.
    """

    metadata: dict[str, Any]
    frame: pd.DataFrame


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What ran an experiment: versions of Python and the libraries, platform, device, threads and load.

    Args:
        device: where it ran.

    Returns:
        Metadata.
    """
    device = torch.device(device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    versions = {name: str(import_module(name).__version__) for name in LIBRARIES}
    return {
        "versions": {"python": platform.python_version()} | versions,
        "platform": platform.system(),
        "device": f"{device.type} ({hardware})",
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }


def collect(
    checkpoints: Iterable[Checkpoint], experiment: Mapping[str, Any] | None = None, commit: str | None = None
) -> Trajectory:
    """Run a fleet to its end and keep its rows.

    Args:
        checkpoints: of `vaebench.training.fleet.train`.
        experiment: what was run, for the record.
        commit: of the code, for the record.

    Returns:
        The trajectory; `metadata["diverged"]` lists seed, step and value of members that diverged.

    Raises:
        ValueError: if there are no checkpoints.
    """
    rows, last = [], None
    for last in checkpoints:
        rows += last.rows()
    if last is None:
        raise ValueError("There are no checkpoints to collect; a generator of them can be used only once.")
    metadata = {"experiment": dict(experiment or {}), "commit": commit} | environment(last.state.like.device)
    metadata["diverged"] = [found._asdict() for found in last.diverged]
    return Trajectory(metadata, pd.DataFrame(rows))


def save(trajectory: Trajectory, path: str | os.PathLike[str]) -> None:
    """Write a trajectory, whole or not at all.

    Args:
        trajectory: what to write.
        path: of the file; its directory must exist.

    Raises:
        ValueError: if a column is of another kind, or there is none.
    """
    frame, types = trajectory.frame, _types(trajectory.frame)
    body = frame.astype(types).to_csv(index=False, na_rep="nan", lineterminator="\n")
    floats = [name for name, kind in types.items() if kind == "float64"]
    header = {
        "format": FORMAT,
        "metadata": encode(trajectory.metadata),
        "columns": types,
        "not_finite": {name: bad for name in floats if (bad := int((~np.isfinite(frame[name])).sum()))},
        "sha256": hashlib.sha256(body.encode()).hexdigest(),
    }
    text = f"# {json.dumps(header, allow_nan=False)}\n{body}"
    write_whole(path, text.encode())


def load(path: str | os.PathLike[str]) -> Trajectory:
    """Read a trajectory; every number comes back as it was.

    Args:
        path: of the file.

    Returns:
        The trajectory; tuples in the metadata are lists now.

    Raises:
        ValueError: if the file is not a trajectory, is of another format, or was cut short or changed.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        first, body = file.readline(), file.read()
    try:
        header = json.loads(first.removeprefix("# "))
        found = header["format"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path} is not a trajectory, or is cut short: it has no whole header.") from None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}, and this vaebench reads format {FORMAT}: run it again.")
    if hashlib.sha256(body.encode()).hexdigest() != header["sha256"]:
        raise ValueError(f"{path} was cut short or changed: its rows do not match the header's digest; run it again.")
    cells = pd.read_csv(StringIO(body), dtype=object, na_filter=False)
    frame = pd.DataFrame(
        {name: cells[name].map(READERS[kind]).astype(kind) for name, kind in header["columns"].items()}
    )
    return Trajectory(decode(header["metadata"]), frame)


def _types(frame: pd.DataFrame) -> dict[str, str]:
    types = {str(name): KINDS.get(frame[name].dtype.kind, "object") for name in frame.columns}
    for name, kind in types.items():
        if kind == "object" and not all(isinstance(cell, str) for cell in frame[name]):
            raise ValueError(f"Column {name!r} must hold numbers, booleans or strings, each cell alike.")
    if not types:
        raise ValueError("A trajectory needs at least one column to be saved.")
    return types


def encode(value: Any) -> Any:
    """Make a value fit for JSON, which has no NaN and no infinity: {"float": "nan"} stands for one."""
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def decode(value: Any) -> Any:
    """The value that `encode` was given; tuples are lists now."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"float"}:
        return float(value["float"])
    return {key: decode(item) for key, item in value.items()}
