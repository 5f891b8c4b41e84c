"""Where an experiment's result lives: one directory, named by the experiment's hash.

`experiment.json` says what was asked, `trajectory.csv` what came out, once all of it has; until then
`snapshot.safetensors` holds the fleet and the rows so far, in one file, so that they cannot disagree. Both files hold
the experiment's hash and a digest of everything else in them: what was changed, or belongs to another experiment, is
refused.
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
from vaebench.experiments.trajectory import Trajectory, decode, encode, verify
from vaebench.experiments.trajectory import load as load_trajectory
from vaebench.experiments.trajectory import save as save_trajectory
from vaebench.support.files import parse_json, read_bytes, write_whole
from vaebench.support.texts import sentence, shown
from vaebench.training.records import Divergence
from vaebench.training.snapshots import Snapshot, digest_of

RESULT, QUESTION, STATE = "trajectory.csv", "experiment.json", "snapshot.safetensors"
LOCK, SET_ASIDE = "lock", "set-aside-trajectory.csv"


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
        with self._locked():
            question = self.directory / QUESTION
            if not question.exists():
                write_whole(question, json.dumps(self.experiment.to_dict(), indent=2).encode() + b"\n")
            yield

    def require_free(self) -> None:
        """Refuse if another process is in the directory; nothing is made.

        Raises:
            BusyError: if one is there.
        """
        if (self.directory / LOCK).exists():
            with self._locked():
                pass

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.directory / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"Another process is running {self.experiment.hash} in {self.directory}; wait for it, or choose "
                "another directory."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def result(self) -> Trajectory | None:
        """The trajectory, if the run is complete; what is damaged, or another experiment's, is refused."""
        path = self.directory / RESULT
        if not path.exists():
            return None
        found = load_trajectory(path)
        self._require_own(path, found.metadata.get("hash"))
        return found

    def trouble(self) -> str | None:
        """Why the file of the result is none: it was cut short, changed, or is another experiment's; else None."""
        path = self.directory / RESULT
        try:
            if path.exists():
                self._require_own(path, verify(path)[0]["metadata"].get("hash"))
        except (ValueError, OSError) as refusal:
            return sentence(refusal)
        return None

    def complete(self) -> bool:
        """Whether the run has come to its end, and its result is whole."""
        return (self.directory / RESULT).exists() and self.trouble() is None

    def step(self) -> int:
        """Steps that are safe: all, those of the snapshot, or none."""
        if self.complete():
            return self.experiment.steps
        unfinished = self.unfinished()
        return unfinished.snapshot.step if unfinished else 0

    def finish(self, trajectory: Trajectory) -> None:
        """Keep the result; the snapshot has served. A result that is none is set aside."""
        path = self.directory / RESULT
        if path.exists():
            path.replace(self.directory / SET_ASIDE)
        save_trajectory(trajectory, path)
        (self.directory / STATE).unlink(missing_ok=True)

    def keep(self, state: Unfinished) -> None:
        """Replace the snapshot."""
        one = state.snapshot
        tensors = {f"parameters/{name}": tensor for name, tensor in one.parameters.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in one.optimizer.items()}
        tensors |= {"generators": one.generators, "losses": one.losses, "grad_sq": one.grad_sq}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        about = {
            "experiment": self.experiment.hash,
            "step": one.step,
            "diverged": [found._asdict() for found in one.diverged],
            "rows": state.rows,
            "seconds": state.seconds,
        }
        words = json.dumps(encode(about), allow_nan=False)
        header = {"vaebench": words, "sha256": digest_of(words, tensors)}
        write_whole(self.directory / STATE, save(tensors, header))

    def unfinished(self) -> Unfinished | None:
        """The snapshot, on the CPU, if there is one.

        Returns:
            What the run has so far, or None.

        Raises:
            ValueError: if it cannot be read, was changed, or is another experiment's.
        """
        path = self.directory / STATE
        try:
            content = read_bytes(path)  # at once: a run that goes on replaces the file
        except FileNotFoundError:
            return None
        again = "delete it, and the run starts again."
        try:
            tensors, end = load(content), 8 + int.from_bytes(content[:8], "little")
            header = parse_json(content[8:end].decode())["__metadata__"]
            whole = header["sha256"] == digest_of(header["vaebench"], tensors)
            about = decode(parse_json(header["vaebench"])) if whole else {}
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError):
            whole, tensors, about = False, {}, {}
        if not whole:
            raise ValueError(f"{path} is damaged: {again}")
        self._require_own(path, about["experiment"])
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

    def _require_own(self, path: Path, found: object) -> None:
        if found != self.experiment.hash:
            raise ValueError(
                f"{path} is of the experiment {shown(found)}, not of {self.experiment.hash}: move it, and run it again."
            )


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
