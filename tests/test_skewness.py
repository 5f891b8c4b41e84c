"""Means of skewed numbers: Student's law holds in the tail after the transformation, and does not before."""

import math

import pytest
import torch
from scipy import stats

from vaebench.gates.directions import Tally
from vaebench.gates.means import mean_p_value, smallest_by_parameter
from vaebench.gates.paired import paired_mean
from vaebench.support.skewness import reach, skewness_from, skewness_of, without_skewness


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_transformation_by_hand():
    """n = 100, s = 2, t = -3: w = -0.3, 1 + s w / 3 = 0.8, 10 (0.512 - 1) / 2 + 2 / 60 = -2.406667; s = -2 mirrors it.

    At t = 3 it is 10 (1.728 - 1) / 2 + 2 / 60 = 3.6733, and |t| is smaller. Without skewness it is |t|.
    """
    t, skewness = torch.tensor([-3.0, 3.0, -3.0, -3.0]).double(), torch.tensor([2.0, -2.0, -2.0, 0.0]).double()
    found = without_skewness(t, skewness, 100)
    torch.testing.assert_close(found, torch.tensor([2.4066667, 2.4066667, 3.0, 3.0]).double())


def test_skewness_by_hand():
    """Of 0, 0, 0, 4: mean 1, second moment 3, third 6; 6 / 3^1.5 = 1.154701. A constant has none."""
    values = torch.tensor([[0.0, 7.0], [0.0, 7.0], [0.0, 7.0], [4.0, 7.0]]).double()
    torch.testing.assert_close(skewness_of(values), torch.tensor([1.1547005, 0.0]).double())
    assert float(skewness_from(torch.tensor(3.0), torch.tensor(6.0))) == pytest.approx(1.1547005)


@pytest.mark.parametrize("skewness", [-30.0, -2.0, 1e-9, 0.7, 25.0])
def test_reach_undoes_the_transformation(skewness):
    """At the reach both signs of t exceed the number; a thousandth below it, one does not."""
    far = reach(5.0, skewness, 800)
    ends = torch.tensor([-far, far, -0.999 * far, 0.999 * far]).double()
    found = without_skewness(ends, torch.full((4,), skewness).double(), 800)
    assert float(found[:2].min()) == pytest.approx(5.0, rel=1e-4) and float(found[2:].min()) < 5.0


def alarms(count: int, level: float, runs: int) -> tuple[int, int]:
    """Of so many runs times eight lognormal means at zero, those beyond a level by Student's t, and transformed."""
    generator, plain, turned = seeded(1), 0, 0
    critical = stats.t.isf(level / 2, count - 1)
    for _ in range(runs):
        x = (
            torch.randn(500, count, 8, generator=generator, dtype=torch.float64)
            .exp()
            .sub(math.exp(0.5))
            .transpose(0, 1)
        )
        t = x.mean(0) / x.std(0) * math.sqrt(count)
        plain += int((t.abs() > critical).sum())
        turned += int((without_skewness(t, skewness_of(x), count) > critical).sum())
    return plain, turned


def test_students_law_holds_in_the_tail_only_after_the_transformation():
    """24,000 means of 256 lognormal numbers at level 1e-3: 24 expected, and at most 58 by chance of 24 in 1e-8."""
    plain, turned = alarms(256, 1e-3, 6)
    assert turned <= 58 < 100 < plain


def tally(differences: torch.Tensor):
    """The paired test of differences (n, 3) in two halves, with one named direction."""
    named = {"scale": torch.ones(2, 3, dtype=torch.float64)}
    found = Tally(named, {"a": 1, "b": 2})
    for half, part in enumerate(differences.chunk(2)):
        found.enter(part, 0.0, half)
        found.turn()
    return found.test(0.0)


def test_differences_are_tested_less_their_skewness():
    """Column 0 has mean -1, deviation s and skewness 2 by hand; its p-value is that of the transformed t, times 9."""
    generator = seeded(2)
    skewed = torch.rand(400, generator=generator, dtype=torch.float64).log().neg()
    others = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    others -= others.mean(0)
    column = skewed - skewed.mean() - 0.3
    found = tally(torch.cat([column.unsqueeze(1), others], 1))
    t = -0.3 / float(column.std()) * 20
    skewness = float(stats.skew(column.numpy()))
    turned = without_skewness(torch.tensor(t), torch.tensor(skewness), 400)
    assert skewness > 1.5 and float(turned) < abs(t) - 0.5
    assert found.worst == "one coordinate"
    assert found.p_value == pytest.approx(3 * 3 * 2 * stats.t.sf(float(turned), 399), rel=1e-3)
    assert found.named["scale"].skewness == pytest.approx(
        float(stats.skew((column.unsqueeze(1) + 0).numpy()[:, 0] + others.sum(1).numpy())), rel=1e-6
    )


def test_differences_without_a_named_direction_are_tested_by_the_others():
    """At an optimum no direction may be known; a mean of 0.5 in column 1 is found all the same."""
    differences = torch.randn(400, 3, generator=seeded(6), dtype=torch.float64)
    for shift, found_it in ((0.0, False), (0.5, True)):
        found = Tally({}, {"a": 1, "b": 2})
        for half, part in enumerate((differences + shift * torch.tensor([0, 1.0, 0])).chunk(2)):
            found.enter(part, 0.0, half)
            found.turn()
        judged = paired_mean(["start"], [found.test(0.0)])
        assert judged.outcome == ("fail" if found_it else "no power") and judged.smallest == math.inf


def test_the_smallest_effect_knows_the_skewness():
    """Of equal errors, the skewed direction's smallest effect is larger by the reach's excess over the threshold."""
    generator = seeded(3)
    skewed = torch.rand(400, 3, generator=generator, dtype=torch.float64).log().neg() - 1
    along = tally(skewed).named["scale"]
    critical = float(stats.t.isf(1e-8 / 6, 399))
    expected = (reach(critical, along.skewness, 400) + stats.t.ppf(0.9, 399)) * along.error
    assert tally(skewed).smallest("scale") == pytest.approx(expected, rel=1e-6)
    assert expected > 1.1 * (critical + stats.t.ppf(0.9, 399)) * along.error


def test_means_of_many_parameters_are_tested_less_their_skewness():
    """800 draws of 100 parameters, column 0 skewed by hand: 165 directions, and its own t transformed."""
    generator = seeded(4)
    samples = torch.randn(800, 100, generator=generator, dtype=torch.float64)
    samples -= samples.mean(0)
    skewed = torch.rand(800, generator=generator, dtype=torch.float64).log().neg()
    samples[:, 0] = 5 * (skewed - skewed.mean())
    mean = torch.zeros(100, dtype=torch.float64)
    mean[0] = 8 * float(samples[:, 0].std()) / math.sqrt(800)
    t = float(without_skewness(torch.tensor(-8.0), skewness_of(samples)[0], 800))
    assert t < 7 and mean_p_value(samples, mean, seeded(5)) == pytest.approx(2 * 165 * stats.t.sf(t, 799), rel=1e-3)
    small = smallest_by_parameter(samples, mean, {"a": 1, "b": 99}, 64)["a"] * float(mean[0])
    error = float(samples[:, 0].std()) / math.sqrt(800)
    critical = float(stats.t.isf(1e-8 / (2 * 165), 799))
    reached = reach(critical, float(skewness_of(samples)[0]), 800) + stats.t.ppf(0.9, 799)
    assert small == pytest.approx(reached * error, rel=1e-6)
