"""The smoke report, made again: every number is the one that is kept."""

import pandas as pd
import pytest

from tests import smoke

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def made():
    return smoke.tables()


def test_the_same_tables_are_made(made):
    assert made.keys() == {path.name for path in smoke.KEPT.iterdir()}


@pytest.mark.parametrize("name", sorted(path.name for path in smoke.KEPT.iterdir()))
def test_no_number_differs(made, name):
    kept = smoke.read((smoke.KEPT / name).read_bytes())
    pd.testing.assert_frame_equal(made[name], kept, rtol=TOLERANCE, atol=0, check_dtype=False)


def test_a_changed_number_is_noticed(made):
    name = sorted(made)[0]
    changed = made[name].copy()
    column = changed.select_dtypes("float").columns[-1]
    changed.loc[0, column] *= 1 + 3 * TOLERANCE
    with pytest.raises(AssertionError, match="different"):
        pd.testing.assert_frame_equal(changed, made[name], rtol=TOLERANCE, atol=0)
