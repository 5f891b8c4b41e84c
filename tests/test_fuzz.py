"""A short form of `python -m tests.fuzz`, and that the harness sees each kind of fault."""

import time

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import OUTCOMES, Subject, fuzz
from tests.fuzz.mutations import flip
from tests.fuzz.places import PLACES, misplace
from tests.fuzz.subjects import subjects


def test_mutated_files_are_read_right_or_refused_in_one_sentence(tmp_path):
    for number, subject in enumerate(subjects(tmp_path)):
        counts, faults = fuzz(subject, 12, seed=1000 + number)
        assert not faults
        assert counts["refused"] + counts["right"] + counts["other"] == 12


def test_what_is_no_file_is_refused_in_one_sentence(tmp_path):
    for subject in subjects(tmp_path):
        counts, faults = misplace(subject)
        assert not faults
        assert 8 <= sum(counts.values()) <= len(PLACES)


def test_the_harness_sees_every_kind_of_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "PATIENCE", 1)
    path, results = tmp_path / "a.bin", tmp_path / "results"
    results.mkdir()

    def seen(broken) -> str:
        path.write_bytes(b"whole")
        subject = Subject("a", path, lambda: broken() if path.read_bytes() != b"whole" else b"", None, (flip,), results)
        counts, faults = fuzz(subject, 1, seed=0)
        assert len(faults) == 1
        return next(name for name in OUTCOMES if counts[name])

    def nameless():
        raise ValueError("it is damaged")

    def astray():
        (tmp_path / "elsewhere").write_text("")
        raise ValueError("a.bin is damaged")

    assert seen(lambda: b"another value") == "wrong"
    assert seen(lambda: [][0]) == "traceback"
    assert seen(nameless) == "traceback"
    assert seen(lambda: time.sleep(5)) == "hang"
    assert seen(astray) == "outside"


@pytest.mark.parametrize("says", [None, lambda content: content.upper()], ids=["checksum", "none"])
def test_what_is_read_otherwise_than_the_file_says_is_wrong(tmp_path, says):
    path, results = tmp_path / "a.bin", tmp_path / "results"
    path.write_bytes(b"whole")
    results.mkdir()
    counts, _ = fuzz(Subject("a", path, path.read_bytes, says, (flip,), results), 5, seed=0)
    assert counts["wrong"] == 5
