"""Runs that are told to end, in any way and at any moment: their workers end, too, and it is said how to go on."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import Command
from tests.test_cli_run import written
from vaebench.experiments import ResultDirectory
from vaebench.experiments.presets import SMOKE
from vaebench.experiments.studies import read_study

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
LONG = replace(SMOKE.base, steps=10**6, probes=("gradient",))


@pytest.fixture
def started(tmp_path) -> Iterator[Command]:
    """A long run, which is killed at the end if it has not ended."""
    file = written(tmp_path / "long.json", LONG, B=[8])
    command = Command(tmp_path, "run", file, "--results", str(tmp_path / "results"))
    yield command
    command.send_signal(signal.SIGKILL)


def workers(parent: int) -> list[int]:
    """Children of a process, whichever of its threads started them."""
    found = []
    for thread in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread is gone
            found += [int(child) for child in thread.read_text().split()]
    return found


def until(true, patience: float = 90) -> None:
    end = time.monotonic() + patience
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    assert true()


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def place(tmp_path: Path) -> ResultDirectory:
    return ResultDirectory(tmp_path / "results", read_study(tmp_path / "long.json").arms[0].experiment)


@pytest.mark.parametrize("sign", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM], ids=lambda sign: sign.name)
def test_a_signal_ends_the_run_and_its_worker_and_nothing_is_lost(tmp_path, started, sign):
    until((place(tmp_path).directory / "experiment.json").exists)
    (worker,) = workers(started.pid)
    time.sleep(1)
    started.send_signal(sign)
    status, _, said = started.end()
    assert status == 1
    assert "Stopped, and nothing is lost. To go on: vaebench resume long" in said
    assert "To look at it" not in said and "Traceback" not in said
    assert not lives(worker)
    assert place(tmp_path).step() > 0


def test_ctrl_c_before_a_worker_has_begun_is_stopped_not_broken(started):
    until(lambda: workers(started.pid))
    started.send_signal(signal.SIGINT)
    status, printed, said = started.end()
    assert status == 1
    assert "stopped" in printed and "broke" not in printed
    assert "To go on: vaebench resume long" in said


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path, started):
    until((place(tmp_path).directory / "experiment.json").exists)
    (worker,) = workers(started.pid)
    started.send_signal(signal.SIGKILL)
    assert started.end()[0] == -signal.SIGKILL
    until(lambda: not lives(worker), 30)


def test_results_that_are_removed_meanwhile_are_said_to_be_lost(tmp_path, started):
    until((place(tmp_path).directory / "experiment.json").exists)
    (tmp_path / "results" / "long.json").unlink()
    started.send_signal(signal.SIGINT)
    status, _, said = started.end()
    assert status == 1
    assert "long: gone from" in said and "nothing is lost" not in said
