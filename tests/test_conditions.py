"""What else used the machine during a run, and what follows from it, on made-up processes and records."""

import os
import time

import pytest
from asv.util import UserError

from benchmarks.harness import bench, conditions
from benchmarks.harness.conditions import Conditions, Watch

TICK = os.sysconf("SC_CLK_TCK")


def run(others=0.1, control=0.01, load=(0.2, 1.0)):
    return Conditions("c" * 40, 100.0, 200.0, load, others, control)


def process(root, pid, parent, own, ended=0, name="python"):
    (root / str(pid)).mkdir()
    (root / str(pid) / "stat").write_text(
        f"{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 {own} 0 {ended} 0 20 0 1 0 5 0\n"
    )


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (run(), ""),
        (run(others=0.25), ""),
        (run(others=0.26), "other processes used 0.3 cores"),
        (run(others=2.0), "other processes used 2.0 cores"),
        (run(others=None, load=(0.7, 3.0)), ""),
        (run(others=None, load=(0.8, 1.0)), "the load average was 0.8 before it began"),
        (run(control=0.0115), ""),
        (run(control=0.0116), "the control took 1.16 times its time at rest"),
    ],
)
def test_what_makes_a_run_busy(found, why):
    assert conditions.disturbance(found, 0.01) == why


def test_rest_is_the_quickest_tenth_of_the_runs():
    assert conditions.reference([0.02]) == 0.02
    assert conditions.reference([0.01 * n for n in range(1, 12)]) == pytest.approx(0.02)


def test_core_seconds_of_a_process_and_all_that_it_started(tmp_path):
    process(tmp_path, 10, 1, 100, ended=50)
    process(tmp_path, 11, 10, 30, name="a) (b")
    process(tmp_path, 12, 11, 7)
    process(tmp_path, 20, 1, 1000)
    (tmp_path / "30").mkdir()  # it has ended meanwhile
    assert conditions.own(10, tmp_path) == 187 / TICK
    assert conditions.own(20, tmp_path) == 1000 / TICK


def test_core_seconds_of_everybody_leave_idling_out_and_count_other_tenants(tmp_path):
    (tmp_path / "stat").write_text("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 1 2 3\n")
    assert conditions.busy(tmp_path) == 63 / TICK


def test_the_watch_counts_what_others_did_and_times_the_control(tmp_path):
    process(tmp_path, os.getpid(), 1, 0)
    (tmp_path / "stat").write_text("cpu  0 0 0 0 0 0 0 0\n")
    with Watch("c" * 40, 0.01, tmp_path) as watch:
        begin = time.monotonic()
        while time.monotonic() - begin < 0.2:
            time.sleep(0.01)
        (tmp_path / "stat").write_text(f"cpu  {100 * TICK} 0 0 0 0 0 0 0\n")
        (tmp_path / str(os.getpid()) / "stat").write_text(f"{os.getpid()} (a) S 1 {'0 ' * 9}{40 * TICK} 0 0 0\n")
    found = watch.found
    assert found is not None and found.others is not None and found.control > 0
    assert found.others == pytest.approx(60 / (found.ended - found.began), rel=0.2)
    assert conditions.disturbance(found, found.control).startswith("other processes used")


def test_where_there_is_no_proc_the_share_of_others_is_not_known(tmp_path):
    with Watch("c" * 40, 0.01, tmp_path) as watch:
        pass
    assert watch.found is not None and watch.found.others is None


def test_records_are_kept_in_order(tmp_path):
    for others in (0.1, 2.0, None):
        conditions.record(run(others=others), tmp_path)
    assert [one.others for one in conditions.read(tmp_path)] == [0.1, 2.0, None]
    assert conditions.read(tmp_path / "none") == []


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"load": [1, 2]}'])
def test_a_line_that_is_no_record_is_one_sentence(tmp_path, line):
    (tmp_path / conditions.RECORDS).write_text(line + "\n")
    with pytest.raises(UserError, match=r"conditions\.jsonl holds a line that is no record"):
        conditions.read(tmp_path)


def test_a_run_says_whether_its_timings_count(tmp_path):
    conditions.record(run(others=2.0), tmp_path)
    assert bench.say(run(others=2.0), tmp_path).startswith("The machine was busy (other processes used 2.0 cores)")
    assert bench.say(run(others=0.0), tmp_path).startswith("The machine was quiet")


@pytest.mark.parametrize(
    ("values", "hollow"),
    [([], True), ([float("nan"), None], True), ([float("nan"), 1.0], False)],
)
def test_a_run_without_any_number_is_hollow(values, hollow):
    assert bench.hollow(values) is hollow
