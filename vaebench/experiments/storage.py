"""Where an experiment's result lives: one directory, named by the experiment's hash.

`experiment.json` says what was asked, `trajectory.csv` what came out, once all of it has; until then
`snapshot.safetensors` holds the fleet and the rows so far, in one file, so that they cannot disagree.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save

from vaebench.experiments.experiment import Experiment
from vaebench.support.files import write_whole
from vaebench.training.records import Divergence
from vaebench.training.snapshots import Snapshot
from vaebench.training.trajectory import Trajectory, decode, encode
from vaebench.training.trajectory import load as load_trajectory
from vaebench.training.trajectory import save as save_trajectory

RESULT, QUESTION, STATE = "trajectory.csv", "experiment.json", "snapshot.safetensors"


class BusyError(RuntimeError):
    """Another process is working in the directory."""


@dataclass(frozen=True)
class Unfinished:
    """What a run has so far.

    Attributes:
        snapshot: the fleet.
        rows: of the checkpoints so far.
        seconds: spent on steps so far.
    """

    snapshot: Snapshot
    rows: list[dict[str, Any]]
    seconds: float


class ResultDirectory:
    """The directory of one experiment's result."""

    def __init__(self, root: Path, experiment: Experiment):
        """Name the place; nothing is made yet."""
        self.experiment = experiment
        self.directory = root / experiment.hash

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Make the directory, and be the only process in it until the end of the block.

        Raises:
            BusyError: if another process is there.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"Another process is running {self.experiment.hash} in {self.directory}; wait for it, or choose "
                "another directory."
            ) from None
        with lock:
            question = self.directory / QUESTION
            if not question.exists():
                write_whole(question, json.dumps(self.experiment.to_dict(), indent=2).encode() + b"\n")
            yield

    def result(self) -> Trajectory | None:
        """The trajectory, if the run is complete."""
        path = self.directory / RESULT
        return load_trajectory(path) if path.exists() else None

    def complete(self) -> bool:
        """Whether the run has come to its end."""
        return (self.directory / RESULT).exists()

    def step(self) -> int:
        """Steps that are safe: all, those of the snapshot, or none."""
        if self.complete():
            return self.experiment.steps
        unfinished = self.unfinished()
        return unfinished.snapshot.step if unfinished else 0

    def finish(self, trajectory: Trajectory) -> None:
        """Keep the result; the snapshot has served."""
        save_trajectory(trajectory, self.directory / RESULT)
        (self.directory / STATE).unlink(missing_ok=True)

    def keep(self, state: Unfinished) -> None:
        """Replace the snapshot."""
        one = state.snapshot
        tensors = {f"parameters/{name}": tensor for name, tensor in one.parameters.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in one.optimizer.items()}
        tensors |= {"generators": one.generators, "losses": one.losses, "grad_sq": one.grad_sq}
        about = {
            "step": one.step,
            "diverged": [found._asdict() for found in one.diverged],
            "rows": state.rows,
            "seconds": state.seconds,
        }
        header = {"vaebench": json.dumps(encode(about), allow_nan=False)}
        write_whole(self.directory / STATE, save({name: t.contiguous() for name, t in tensors.items()}, header))

    def unfinished(self) -> Unfinished | None:
        """The snapshot, on the CPU, if there is one.

        Returns:
            What the run has so far, or None.

        Raises:
            ValueError: if it cannot be read.
        """
        path = self.directory / STATE
        try:
            content = path.read_bytes()  # at once: a run that goes on replaces the file
        except FileNotFoundError:
            return None
        try:
            tensors, end = load(content), 8 + int.from_bytes(content[:8], "little")
            about = decode(json.loads(json.loads(content[8:end])["__metadata__"]["vaebench"]))
        except (SafetensorError, KeyError, ValueError):
            raise ValueError(f"{path} is damaged: delete it, and the run starts again.") from None
        snapshot = Snapshot(
            about["step"],
            _under("parameters/", tensors),
            _under("optimizer/", tensors),
            tensors["generators"],
            tensors["losses"],
            tensors["grad_sq"],
            tuple(Divergence(**found) for found in about["diverged"]),
        )
        return Unfinished(snapshot, about["rows"], about["seconds"])


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
