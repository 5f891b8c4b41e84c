"""A real scheduler and two real workers on loopback; one of them is killed halfway."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_running import SMALL, same
from vaebench.experiments import ResultDirectory, run
from vaebench.experiments.scheduling import cluster as cluster_engine
from vaebench.experiments.scheduling.cluster import Cluster, SchedulerLostError, run_on_cluster

pytest.importorskip("distributed", reason="needs the extra vaebench[cluster]")
LONG = replace(SMALL, steps=800)


class Farm:
    """A scheduler and two workers on loopback; who was killed is started again by `whole`."""

    def __init__(self, folder: Path):
        self.folder, self.workers = folder, []
        self.scheduler: subprocess.Popen | None = None

    @property
    def address(self) -> Path:
        return self.folder / "scheduler.json"

    def whole(self) -> None:
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.kill()
            self.address.unlink(missing_ok=True)
            self.scheduler = self._started("scheduler", "--host", "127.0.0.1", "--port", "0")
            until = time.monotonic() + 60
            while not self.address.exists() and time.monotonic() < until:
                time.sleep(0.05)
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        local = ("--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder))
        self.workers += [self._started("worker", *local) for _ in range(2 - len(self.workers))]

    def kill(self) -> None:
        for process in (*self.workers, *([self.scheduler] if self.scheduler else [])):
            process.kill()
            process.wait()

    def _started(self, kind: str, *options: str) -> subprocess.Popen:
        common = ("--no-dashboard", "--scheduler-file", str(self.address))
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *common, *options]
        with (self.folder / f"{kind}-{time.monotonic_ns()}.log").open("w") as log:
            return subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def farm(tmp_path_factory) -> Iterator[Farm]:
    one = Farm(tmp_path_factory.mktemp("farm"))
    yield one
    one.kill()


@pytest.fixture
def cluster(farm):
    """Its address and its processes: three of them, and two workers that the scheduler knows."""
    from distributed import Client

    farm.whole()
    with Client(scheduler_file=str(farm.address), set_as_default=False) as client:
        until = time.monotonic() + 60
        while len(client.scheduler_info()["workers"]) != 2 and time.monotonic() < until:
            time.sleep(0.05)
        yield client.scheduler.address, farm.workers, farm.scheduler


def test_a_lost_worker_loses_nothing_and_nothing_runs_twice(tmp_path, cluster):
    address, workers, _ = cluster
    experiments = [replace(LONG, seeds=(seed,)) for seed in range(4)]
    seen: dict[str, list[int]] = {}

    def progress(at) -> None:
        seen.setdefault(at.hash, []).append(at.step)
        if at.step > 200 and workers[0].poll() is None:
            workers[0].send_signal(signal.SIGKILL)

    root = tmp_path / "results"
    outcomes = list(run_on_cluster(experiments, root, Cluster(address), progress, lambda: False, every=0.1))
    assert workers[0].wait(10) == -signal.SIGKILL
    assert sorted(outcome.experiment.hash for outcome in outcomes) == sorted(one.hash for one in experiments)
    assert all(outcome.complete for outcome in outcomes), outcomes
    for one in experiments[:2]:
        there = ResultDirectory(root, one).result()
        assert there is not None
        assert same(there, run(one, tmp_path / "alone"))
    assert all(steps == sorted(steps) or min(steps[1:]) > 0 for steps in seen.values())


def test_nobody_at_the_address_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_engine, "PATIENCE", "1s")
    with pytest.raises(ValueError, match=r"No scheduler answers at 'tcp://127\.0\.0\.1:1'"):
        list(run_on_cluster([LONG], tmp_path, Cluster("tcp://127.0.0.1:1"), lambda _: None, lambda: False))


ENDLESS = replace(SMALL, steps=10**7)


def test_asked_to_stop_workers_keep_a_snapshot_within_seconds(tmp_path, cluster):
    address, _, _ = cluster
    seen: list[int] = []
    experiments = [replace(ENDLESS, seeds=(seed,)) for seed in range(3)]
    outcomes = list(
        run_on_cluster(
            experiments, tmp_path / "r", Cluster(address), lambda at: seen.append(at.step), lambda: bool(seen)
        )
    )
    assert all(outcome.stopped is not None or outcome.failed for outcome in outcomes)
    assert sum(ResultDirectory(tmp_path / "r", one).step() > 0 for one in experiments) >= 1


def test_a_relative_directory_of_results_is_made_absolute(tmp_path, cluster, monkeypatch):
    address, _, _ = cluster
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    one = replace(SMALL, steps=30)
    (outcome,) = run_on_cluster([one], Path("results"), Cluster(address), lambda _: None, lambda: False)
    assert outcome.complete
    assert [path.parent for path in tmp_path.rglob("trajectory.csv")] == [tmp_path / "here" / "results" / one.hash]


def test_a_scheduler_that_dies_is_one_sentence_and_rows_are_kept(tmp_path, cluster):
    address, _, scheduler = cluster
    done, long = replace(SMALL, steps=50), replace(ENDLESS, seeds=(5,))
    outcomes = run_on_cluster([done, long], tmp_path / "r", Cluster(address), lambda _: None, lambda: False)
    assert next(outcomes).complete
    scheduler.send_signal(signal.SIGKILL)
    with pytest.raises(SchedulerLostError, match=r"is gone .*; results and snapshots so far are kept"):
        list(outcomes)
    assert ResultDirectory(tmp_path / "r", done).complete()


@pytest.mark.parametrize(
    ("address", "certificates", "sentence"),
    [
        ("foo://x", {}, "'foo://x' is no address of a scheduler: write one such as tcp://10.0.0.1:8786."),
        ("", {}, "'' is no address of a scheduler"),
        ("tcp://host", {}, "is no address"),
        ("tls://host:8786", {}, "needs --tls-ca, --tls-cert and --tls-key"),
        ("tcp://host:8786", {"ca": "a.pem"}, "Certificates are for tls:// addresses"),
        ("tls://host:8786", {"ca": "no", "certificate": "such", "key": "file"}, "There is no file 'no' with the ca"),
    ],
)
def test_an_address_that_is_none_is_one_sentence(address, certificates, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Cluster(address, **certificates)
