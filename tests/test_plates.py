"""Which plate is over the rows, and what programs have no log-weight by row."""

import numpy as np
import pytest

from vaebench.experiments.blackboxes.plates import PARTICLES, Site, require_sites, require_whole, rows_of, the_plate

DATA, PIXELS = {"data": (-2, 4)}, {"data": (-2, 4), "pixels": (-1, 6)}
Z, X = Site("z", DATA, False), Site("x", PIXELS, True)


def test_the_plate_is_the_one_that_all_sites_share():
    assert the_plate([Z, X], 4) == "data"
    assert the_plate([Site("z", {"all": (-1, 640)}, False), Site("x", {"all": (-1, 640)}, True)], 4) == "all"
    assert the_plate([Site("z", PIXELS, False), X], 4) == "data"  # both share both: the one of as many rows


@pytest.mark.parametrize(
    ("sites", "sentence"),
    [
        ([Site("mean", {}, False), X], "'mean' must be in one plate over the 4 rows"),
        ([Site("z", {"data": (-2, 4), "latents": (-1, 4)}, False)] * 2, "not known which of them is over the 4 rows"),
    ],
)
def test_without_one_there_is_no_bound_by_row(sites, sentence):
    with pytest.raises(ValueError, match=sentence):
        the_plate(sites, 4)


def test_a_log_probability_is_summed_over_all_plates_but_rows_and_particles():
    table = np.arange(24.0).reshape(4, 6)
    np.testing.assert_array_equal(rows_of("x", table, PIXELS, "data"), table.sum(1))
    several = {"data": (-1, 6), PARTICLES: (-2, 4)}
    np.testing.assert_array_equal(rows_of("x", table, several, "data"), table)
    with pytest.raises(ValueError, match="'x' must have 4 rows at dimension -2"):
        rows_of("x", table.T, PIXELS, "data")


@pytest.mark.parametrize(
    ("model", "guide", "sentence"),
    [
        ([Z, X], [Z, X], "must observe nothing, and observes 'x'"),
        ([Z], [Z], "The model observes nothing"),
        ([Z, X], [Z._replace(enumerated=True)], "'z' are enumerated"),
        ([Z, X], [], "'z' is not in the guide"),
        ([Z, X], [Z, Z._replace(name="y")], "'y' is not in the model"),
    ],
)
def test_programs_of_which_no_log_weight_can_be_made(model, guide, sentence):
    with pytest.raises(ValueError, match=sentence):
        require_sites(model, guide)
    require_sites([Z, X], [Z, Z._replace(name="y", auxiliary=True)])


def test_a_subsample_of_ones_own_is_the_elbos_alone():
    assert require_whole(4, 4, 0.0) and require_whole(640, 4, 0.0) and not require_whole(2, 4, 1.0)
    with pytest.raises(ValueError, match="takes 2 of the 4 rows of x anew"):
        require_whole(2, 4, 0.0)
