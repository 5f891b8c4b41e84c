"""What makes timings lie is pinned, and every kind of record says how."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.cuda.__main__ import header
from benchmarks.harness.pinned import VARIABLES, pinned

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "reports/history").glob("*/*-env-*.json"))


@pytest.fixture(scope="module")
def asv_sets():
    return json.loads((ROOT / "asv.conf.json").read_text("utf-8"))["matrix"]["env_nobuild"]


def test_what_asv_sets_is_what_is_recorded(asv_sets):
    assert set(asv_sets) == set(VARIABLES)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name[:8])
def test_results_of_asv_have_it(path, asv_sets):
    found = json.loads(path.read_text("utf-8"))["env_vars"]
    assert {name: [value] for name, value in found.items()} == asv_sets


def test_files_of_pytest_benchmark_have_it(pytestconfig):
    info = {}
    pytestconfig.hook.pytest_benchmark_update_machine_info(config=pytestconfig, machine_info=info)
    assert info == {"pinned": pinned()}


def test_records_of_cuda_have_it():
    assert header("cpu", quick=True)["pinned"] == pinned()


def test_it_is_what_the_process_has(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    found = pinned()
    assert found["OMP_NUM_THREADS"] == "3" and found["MALLOC_MMAP_MAX_"] == "not set"
    assert found["torch threads"] == str(torch.get_num_threads())
