"""Mutate a file again and again, read it, and count what became of it."""

import signal
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.fuzz.mutations import Mutation
from vaebench.support.texts import sentence

REFUSALS = (ValueError, LookupError, ImportError, OSError)
PATIENCE = 20  # seconds, after which reading hangs
OUTCOMES = ("right", "other", "refused", "wrong", "traceback", "hang", "outside")
FAULTS = OUTCOMES[3:]


class Subject(NamedTuple):
    """A kind of file.

    Attributes:
        name: of the kind.
        path: of a whole one.
        read: what the product makes of it.
        says: what a mutated file says by another reader, for formats without a checksum; raises if it says nothing.
        mutations: that suit it.
        results: the only directory in which anything may be written.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    says: Callable[[bytes], Any] | None
    mutations: tuple[Mutation, ...]
    results: Path


class Hang(BaseException):
    """Reading takes too long; of no kind that a reader catches."""


def fuzz(subject: Subject, number: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Mutate a file, and read it.

    Args:
        subject: the file.
        number: of mutations.
        seed: of their choice.

    Returns:
        Counts by outcome, and a line for each fault, with the number of its mutation.
    """
    content, random = subject.path.read_bytes(), Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files of data are not the originals
        right = subject.read()
    counts, faults = Counter(dict.fromkeys(OUTCOMES, 0)), []
    for turn in range(number):
        mutation = random.choice(subject.mutations)
        mutated = mutation(content, random)
        subject.path.write_bytes(mutated)
        before = _tree(subject)
        outcome, what = outcome_of(subject, mutated, right)
        if _tree(subject) != before:
            outcome, what = "outside", "a file was written"
        counts[outcome] += 1
        if outcome in FAULTS:
            faults.append(f"{subject.name} {turn} ({mutation.__name__}): {outcome}: {what}")
    subject.path.write_bytes(content)
    return counts, faults


def outcome_of(subject: Subject, mutated: bytes, right: Any) -> tuple[str, str]:
    """What becomes of a mutated file when it is read, and why, if that is a fault."""
    before = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = subject.read()
    except REFUSALS as refusal:
        text = str(refusal)
        there = subject.path.exists()  # a link to nothing is no file that could be named
        named = (subject.path.name in text or not there) and "\n" not in text and sentence(refusal)
        return ("refused", text) if named else ("traceback", f"does not name the file in one line: {text[:200]!r}")
    except Hang:
        return "hang", f"more than {PATIENCE} s"
    except Exception as trouble:
        return "traceback", repr(trouble)[:200]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if found == right:
        return "right", ""
    if subject.says is None:
        return "wrong", "accepted, and not what was written"
    try:
        return ("other", "") if found == subject.says(mutated) else ("wrong", "not what the file says")
    except Exception as trouble:
        return "wrong", f"accepted, and another reader refuses it: {trouble!r}"[:200]


def _hang(number: int, frame: object) -> None:
    raise Hang


def _tree(subject: Subject) -> set[str]:
    """Files beside the one that is read, those in the results left out."""
    folder = subject.results.parent
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_relative_to(subject.results) and path != subject.path
    }
