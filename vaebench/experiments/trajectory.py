"""Trajectories: the record of one experiment, kept in one file that is either whole or not there.

The first line is a JSON header, after "# "; the rest is CSV with floats in full precision. The header holds the
metadata, the columns' types, how many values are not finite, and a digest of all that follows the digest: a file in
which a byte was changed is refused. One file, because a rename replaces one file at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaebench.support.files import parse_json, read_bytes, write_whole
from vaebench.training.records import Checkpoint

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
START = re.compile(rb'# \{"format": (\d{1,9}), "sha256": "([0-9a-f]{64})", ')
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
    """What ran an experiment on a device, for its record: versions, platform, device, threads and load."""
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
    """Run a fleet to its end and keep its rows, with what was run and by which commit.

    Returns:
        The trajectory; `metadata["diverged"]` lists seed, step and value of members that diverged.

    Raises:
        ValueError: if there are no checkpoints.
    """
    import pandas as pd  # here and below: commands that keep no trajectory start without it

    rows, last = [], None
    for last in checkpoints:
        rows += last.rows()
    if last is None:
        raise ValueError("There are no checkpoints to collect; a generator of them can be used only once.")
    metadata = {"experiment": dict(experiment or {}), "commit": commit} | environment(last.state.like.device)
    metadata["diverged"] = [found._asdict() for found in last.diverged]
    return Trajectory(metadata, pd.DataFrame(rows))


def save(trajectory: Trajectory, path: str | os.PathLike[str]) -> None:
    """Write a trajectory to a file, whole or not at all.

    Raises:
        ValueError: if a column is of another kind, or there is none.
    """
    frame, types = trajectory.frame, _types(trajectory.frame)
    body = frame.astype(types).to_csv(index=False, na_rep="nan", lineterminator="\n")
    floats = [name for name, kind in types.items() if kind == "float64"]
    header = {
        "metadata": encode(trajectory.metadata),
        "columns": types,
        "not_finite": {name: bad for name in floats if (bad := int((~np.isfinite(frame[name])).sum()))},
    }
    rest = f"{json.dumps(header, allow_nan=False)[1:]}\n{body}".encode()
    digest = hashlib.sha256(rest).hexdigest()
    write_whole(path, f'# {{"format": {FORMAT}, "sha256": "{digest}", '.encode() + rest)


def verify(path: str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """Read a trajectory's header and the text of its rows, and compare them with its digest.

    Returns:
        The header, its metadata decoded, and the CSV.

    Raises:
        ValueError: if the file is not a trajectory, is of another format, or was cut short or changed.
    """
    content = read_bytes(Path(path))
    start = START.match(content)
    if start is None:
        raise ValueError(f"{path} is not a trajectory, or is cut short or of format 1: it has no whole header.")
    if int(start[1]) != FORMAT:
        raise ValueError(f"{path} has format {int(start[1])}, and this vaebench reads format {FORMAT}: run it again.")
    if hashlib.sha256(content[start.end() :]).hexdigest().encode() != start[2]:
        raise ValueError(f"{path} was cut short or changed: it does not match its digest; run it again.")
    try:
        first, _, body = content[start.end() :].decode().partition("\n")
        header = parse_json("{" + first)
        return header | {"metadata": dict(decode(header["metadata"]))}, body
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is not a trajectory: its header is not one.") from None


def load(path: str | os.PathLike[str]) -> Trajectory:
    """Read a trajectory; every number comes back as it was, and tuples in the metadata as lists.

    Returns:
        The trajectory.

    Raises:
        ValueError: if the file is not a trajectory, is of another format, or was cut short or changed.
    """
    import pandas as pd

    header, body = verify(path)
    try:
        cells = pd.read_csv(StringIO(body), dtype=object, na_filter=False)
        columns = {name: cells[name].map(READERS[kind]).astype(kind) for name, kind in header["columns"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise ValueError(f"{path} is not a trajectory: its rows are not what its header says.") from None
    return Trajectory(header["metadata"], pd.DataFrame(columns))


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
