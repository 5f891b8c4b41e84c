"""asv's machine entry: a name for the kind of machine, and a file that keeps what it holds."""

import json

import pytest

from benchmarks.harness import machine
from benchmarks.harness.machine import Processor
from benchmarks.peers.cost import cpu as cpu_of_peers

ENTRY = {"machine": "cpu-2cores", "os": "Linux"}
CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: {family}
model\t\t: {model}
model name\t: AMD EPYC
flags\t\t: fpu sse2 {flags}

processor\t: 1
model\t\t: 99
flags\t\t: fpu avx512f
"""


@pytest.mark.parametrize(
    ("cpu", "kind", "cores", "gpu", "name"),
    [
        (
            "Intel(R) Xeon(R) CPU @ 2.20GHz",
            Processor("6", "79", "avx2"),
            2,
            "none",
            "intel-xeon-cpu-6-79-avx2-2cores",
        ),
        (
            "AMD EPYC 7B13",
            Processor("25", "1", "avx2"),
            16,
            "NVIDIA H100 80GB HBM3",
            "amd-epyc-7b13-25-1-avx2-16cores-nvidia-h100-80gb-hbm3",
        ),
        ("Apple M2", Processor(), 8, "none", "apple-m2-8cores"),
    ],
)
def test_name_describes_the_hardware(cpu, kind, cores, gpu, name):
    assert machine.name(cpu, kind, cores, gpu) == name


@pytest.mark.parametrize(
    ("family", "model", "flags", "kind"),
    [
        (25, 1, "avx avx2", Processor("25", "1", "avx2")),
        (25, 17, "avx avx2 avx512f avx512bw", Processor("25", "17", "avx512")),
        (6, 42, "avx", Processor("6", "42", "avx")),
        (6, 15, "", Processor("6", "15", "")),
    ],
)
def test_processors_of_one_name_are_told_apart(family, model, flags, kind):
    assert machine.processor(CPUINFO.format(family=family, model=model, flags=flags)) == kind


def test_of_arm_maker_part_and_vectors_are_read():
    said = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
    assert machine.processor(said) == Processor("0x41", "0xd40", "sve")


def test_where_the_kernel_says_nothing_the_name_has_no_more_than_before():
    assert machine.processor("") == Processor("", "", "")


def test_machines_that_differ_in_vectors_have_different_entries(tmp_path):
    entries = []
    for flags in ("avx2", "avx2 avx512f"):
        (tmp_path / "cpuinfo").write_text(CPUINFO.format(family=25, model=17, flags=flags))
        entries.append(machine.describe(tmp_path / "cpuinfo"))
    assert entries[0]["machine"] != entries[1]["machine"] and entries[0]["cpu"] != entries[1]["cpu"]


def test_description_is_complete():
    entry = machine.describe()
    assert entry.keys() >= {"machine", "os", "arch", "cpu", "num_cpu", "ram", "gpu"}
    assert all(entry.values())


def test_times_of_peers_are_known_by_the_same_description():
    assert cpu_of_peers() == f"{machine.describe()['cpu']}, {machine.describe()['num_cpu']} cores"


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
