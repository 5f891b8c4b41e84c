"""The mutations of `python -m tests.mutations` are of the source as it is."""

from tests.mutations.__main__ import MUTATIONS, ROOT, source_of


def test_no_mutation_is_stale_and_none_stands_twice():
    assert [(one.path, one.old) for one in MUTATIONS if source_of(ROOT, one) is None] == []
    assert len({one[:3] for one in MUTATIONS}) == len(MUTATIONS) >= 100
    assert all(one.old != one.new for one in MUTATIONS)
