"""asv's machine entry: a name for the kind of machine, and a file that keeps what it holds."""

import json

import pytest

from benchmarks.harness import machine

ENTRY = {"machine": "cpu-2cores", "os": "Linux"}


@pytest.mark.parametrize(
    ("cpu", "cores", "gpu", "name"),
    [
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", 2, "none", "intel-xeon-cpu-2cores"),
        ("AMD EPYC 7B13", 16, "NVIDIA H100 80GB HBM3", "amd-epyc-7b13-16cores-nvidia-h100-80gb-hbm3"),
    ],
)
def test_name_describes_the_hardware(cpu, cores, gpu, name):
    assert machine.name(cpu, cores, gpu) == name


def test_description_is_complete():
    entry = machine.describe()
    assert entry.keys() >= {"machine", "os", "arch", "cpu", "num_cpu", "ram", "gpu"}
    assert all(entry.values())


def test_register_keeps_other_machines(tmp_path):
    path = tmp_path / "machines.json"
    path.write_text(json.dumps({"other": {"machine": "other"}, "version": 1}))
    machine.register(ENTRY, path)
    assert json.loads(path.read_text()) == {"other": {"machine": "other"}, "cpu-2cores": ENTRY, "version": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_register_keeps_an_entry_of_that_name(tmp_path):
    path = tmp_path / "machines.json"
    machine.register(ENTRY | {"ram": "edited"}, path)
    machine.register(ENTRY, path)
    assert json.loads(path.read_text())["cpu-2cores"]["ram"] == "edited"


def test_register_refuses_a_broken_file(tmp_path):
    path = tmp_path / "machines.json"
    path.write_text("{")
    with pytest.raises(SystemExit, match="is not JSON"):
        machine.register(ENTRY, path)
