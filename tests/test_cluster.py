"""A real scheduler and two real workers on loopback; one of them is killed halfway."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.test_running import SMALL, same
from vaebench.experiments import ResultDirectory, run
from vaebench.experiments.scheduling import cluster as cluster_engine
from vaebench.experiments.scheduling.cluster import run_on_cluster

pytest.importorskip("distributed", reason="needs the extra vaebench[cluster]")
LONG = replace(SMALL, steps=800)


def started(*words: str, folder):
    command = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:]]
    with (folder / f"{words[0]}-{time.monotonic_ns()}.log").open("w") as log:
        return subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def cluster(tmp_path):
    address = tmp_path / "scheduler.json"
    file = ("--scheduler-file", str(address))
    scheduler = started("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", *file, folder=tmp_path)
    local = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path))
    workers = [started("worker", *file, *local, folder=tmp_path) for _ in range(2)]
    until = time.monotonic() + 60
    while not address.exists() and time.monotonic() < until:
        time.sleep(0.05)
    from distributed import Client

    with Client(scheduler_file=str(address), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        yield client.scheduler.address, workers
    for process in (*workers, scheduler):
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_lost_worker_loses_nothing_and_nothing_runs_twice(tmp_path, cluster):
    address, workers = cluster
    experiments = [replace(LONG, seeds=(seed,)) for seed in range(4)]
    seen: dict[str, list[int]] = {}

    def progress(at) -> None:
        seen.setdefault(at.hash, []).append(at.step)
        if at.step > 200 and workers[0].poll() is None:
            workers[0].send_signal(signal.SIGKILL)

    root = tmp_path / "results"
    outcomes = list(run_on_cluster(experiments, root, address, progress, lambda: False, every=0.1))
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
        list(run_on_cluster([LONG], tmp_path, "tcp://127.0.0.1:1", lambda _: None, lambda: False))
