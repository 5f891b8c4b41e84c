"""What a report claims: a difference only beyond chance, and no trust without checks."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.studies import study
from vaebench.report.answer import Entry, answers, chance, trust
from vaebench.report.study import results
from vaebench.support.statistics import Estimate


def answer(*values, error=1.0):
    """What is said of arms with these final squared gradients."""
    asked, trajectories, summaries = study(*(f"arm {place}" for place in range(len(values))))
    for arm, value in zip(asked.arms, values, strict=True):
        final = {"|grad|^2": Estimate(value, error)}
        summaries[arm.hash] = replace(summaries[arm.hash], final=final)
    return answers(results(asked, trajectories, summaries))[0].text


def test_differences_are_claimed_only_beyond_chance():
    assert "is lowest with arm 1, 10.0 ± 1.0, and highest with arm 0, 12.0 ± 1.0: 1.4 standard" in answer(12, 10)
    assert "do not tell the arms apart" in answer(12, 10)
    assert "2.1 standard errors apart, but 5 equal arms lie as far apart in" in answer(10, 11, 12, 12, 13)
    assert "not settled" in answer(10, 11, 12, 12, 13)
    clear = answer(10, 11, 30)
    assert "14.1 standard errors apart, a clear difference" in clear and clear.endswith("of the best: arm 1.")
    assert "whether this is chance cannot be said" in answer(1, 2, error=math.nan)
    assert answer(3).endswith("is 3.0 ± 1.0.")


def test_the_chance_of_two_arms_is_that_of_welch_and_of_many_that_of_the_range():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5)) * [[1], [3]] + [[0], [4]]
    first, second = (Entry("", Estimate(z.mean(), stats.sem(z)), len(z)) for z in (x, y))
    assert chance(first, second, 2) == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue, rel=1e-6)
    equal = [Entry("", Estimate(value, 1.0), 10**6) for value in (0.0, 3.0)]
    assert chance(*equal, 5) == pytest.approx(stats.studentized_range.sf(3.0, 5, np.inf), rel=1e-3)


def test_false_alarms_add_up():
    assert trust(results(*study("ReLU", "Tanh"))).chance == pytest.approx(2e-3)
