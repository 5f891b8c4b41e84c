"""Means of skewed numbers: Student's law holds in the tail after the transformation, and does not before."""

import math

import pytest
import torch
from scipy import stats

from tests.convergence.faults.beds import problem
from vaebench.gates.at_rest import Draws
from vaebench.gates.choices import allotted
from vaebench.gates.directions import Tally
from vaebench.gates.laws import ratio_in_samples, variance_in_samples
from vaebench.gates.means import mean_p_value, smallest_by_parameter
from vaebench.gates.paired import differences, paired_mean
from vaebench.gates.variances import independent_draws, log_ratio, variance_in_batch
from vaebench.gradients.estimators import analytic_kl
from vaebench.gradients.objectives import Objective
from vaebench.measures.moments import gather
from vaebench.measures.probes import gradient_variance, skewed_variance
from vaebench.support.skewness import SHORTFALL, Skewed, reach, skewness_from, skewness_of, without_skewness
from vaebench.support.statistics import hotelling, hotelling_two_sample


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_transformation_by_hand():
    """A sample's skewness of 1.5 stands for s = 4/3 x 1.5 = 2. At n = 100 and t = -3, w = -0.3, 1 + s w / 3 = 0.8.

    So 10 (0.512 - 1) / 2 + 2 / 60 = -2.406667 is what is left; -1.5 mirrors it.

    At t = 3 it is 10 (1.728 - 1) / 2 + 2 / 60 = 3.6733, and |t| is smaller. Without skewness it is |t|.
    """
    t, skewness = torch.tensor([-3.0, 3.0, -3.0, -3.0]).double(), torch.tensor([1.5, -1.5, -1.5, 0.0]).double()
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


def test_each_named_direction_has_its_share_of_the_level():
    """A mean along the first of two named directions: three families, two directions, two sides."""
    rows = torch.randn(400, 2, generator=seeded(8), dtype=torch.float64) + 0.3
    axes = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    found = Tally({name: axis.expand(2, 2) for name, axis in zip("ab", axes, strict=True)}, {"w": 2})
    for half, part in enumerate(rows.chunk(2)):
        found.enter(part, 0.0, half)
        found.turn()
    judged = found.test(0.0)
    assert judged.worst == "a" and judged.p_value == pytest.approx(3 * 2 * judged.named["a"].p_value, abs=0)


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


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_the_weight_of_the_kl_term_is_relative_to_its_own(beta):
    """Twice the weight has twice the difference in 2 %; and a gate that finds a tenth of the gradient has power."""
    model, data = problem(16, 2)

    def lighter(model, x, noise, objective):
        return analytic_kl(model, x, noise, Objective(beta=0.98 * objective.beta))

    found = differences(model, lighter, Objective(beta=beta), data, 8, 800, seeded(5), trusted=analytic_kl)
    off = found.named["KL weight"]
    assert abs(off.value + 0.02) < 5 * off.error + 1e-6 and off.error < 2e-3
    assert paired_mean(["start"], [found]).limit == 0.1


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


def tilted(law, count: int, critical: float, runs: int = 600) -> tuple[float, float, float]:
    """How often means of skewed numbers lie beyond a critical value on their short side, over how often they should.

    By importance sampling: numbers are drawn with density exp(b x - b^2 x^2 / 2) times their law's, whose sums lie
    where a normal's would be beyond the value (self-normalised large deviations), and weighted by the inverse.

    Returns:
        By Student's t, by the sample's own skewness, and by `without_skewness`; errors are below a tenth.
    """
    z = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    mass, x = torch.softmax(-z.square() / 2, 0), law(z)
    x = (x - mass @ x) / (mass @ (x - mass @ x).square()).sqrt()
    sums, places, norms = [], [-f * critical / math.sqrt(count) for f in (0.8, 1.0, 1.25, 1.6)], []
    generator = seeded(7)
    for b in places:
        tilt = mass * (b * x - (b * x).square() / 2).exp()
        norms.append(float(tilt.sum().log()))
        drawn = torch.rand(runs, count, generator=generator, dtype=torch.float64)
        y = x[torch.searchsorted((tilt / tilt.sum()).cumsum(0), drawn).clamp(max=6000)]
        sums.append(torch.stack([y.sum(1), y.square().sum(1), y.pow(3).sum(1)]))
    total, squares, cubes = torch.cat(sums, 1)
    logs = [b * total - b * b * squares / 2 - count * norm for b, norm in zip(places, norms, strict=True)]
    weights = (-torch.stack(logs)).exp().reciprocal().mean(0).reciprocal()
    mean = total / count
    variance = squares / count - mean.square()
    skewness = skewness_from(variance, cubes / count - 3 * mean * squares / count + 2 * mean**3)
    t = mean / (variance / (count - 1)).sqrt()
    by = (t.abs(), without_skewness(t, skewness / SHORTFALL, count), without_skewness(t, skewness, count))
    level = 2 * stats.t.sf(critical, count - 1)
    return tuple(float((weights * (one > critical) * (t < 0)).mean()) / level for one in by)  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("law", [lambda z: -torch.special.log_ndtr(-z), torch.exp], ids=["exponential", "lognormal"])
@pytest.mark.parametrize(("count", "level"), [(800, 1e-8), (1920, 2.6e-7)], ids=["rest", "path"])
def test_levels_of_the_gates_are_kept_in_the_tail(law, count, level):
    """At levels and numbers of the gates: Student's t alarms 4 to 600 times too often, the transformed one does not."""
    plain, own, both = tilted(law, count, float(stats.t.isf(level / 2, count - 1)))
    assert both < 0.9 and both < own < plain and plain > 3


def test_hotellings_statistic_is_less_its_skewness():
    """One coordinate of 30 numbers: T^2 is the square of the transformed t, on either side."""
    skewed = torch.rand(30, 1, generator=seeded(8), dtype=torch.float64).log().neg()
    for shift in (-0.6, 0.6):
        mean = skewed.mean(0) - shift
        t = shift / (float(skewed.std()) / math.sqrt(30))
        left = float(without_skewness(torch.tensor(t), torch.tensor(stats.skew(skewed.numpy()[:, 0])), 30))
        found = hotelling(skewed, mean)
        assert found.statistic == pytest.approx(left**2, rel=1e-6)
        assert found.p_value == pytest.approx(2 * stats.t.sf(left, 29))
        mirrored = hotelling_two_sample(skewed - mean, torch.zeros(30, 1).double() + 1e-12)
        assert mirrored.statistic == pytest.approx(left**2, rel=1e-6)
        other = hotelling_two_sample(torch.zeros(30, 1).double(), skewed - mean)
        assert other.statistic == pytest.approx(left**2, rel=1e-6), "the second set's skewness counts the other way"
        assert (left < 0.99 * abs(t)) == (shift < 0), "only on the short side"


def test_differences_and_logarithms_of_skewed_numbers_by_hand():
    """3 and 2 with errors 0.3, 0.4 and skewnesses 0.2, 0.1: 1 with error 0.5 and (0.0054 - 0.0064) / 0.125 = -0.008.

    The logarithm of 2 has the error 0.2 and the skewness 0.1 - 0.3.
    """
    one, two = Skewed(3.0, 0.3, 0.2), Skewed(2.0, 0.4, 0.1)
    assert tuple(one.less(two)) == pytest.approx((1.0, 0.5, -0.008))
    assert tuple(one.less(two, 3.0)) == pytest.approx((-3.0, math.hypot(0.3, 1.2), (0.0054 - 0.1728) / 1.53**1.5))
    assert tuple(two.log()) == pytest.approx((math.log(2), 0.2, -0.2))
    assert Skewed(-1.0, 0.5, 0.3).log() == (-math.inf, 0.0, 0.0)
    assert one.score() == pytest.approx(10) and one._replace(value=-0.9).score() == pytest.approx(
        abs(-3 * (1 - 0.8 / 3 + 0.8**2 / 27) + 0.8 / 18), rel=1e-6
    )
    assert Skewed(0.0, 0.0, 0.0).score() == 0 and Skewed(1.0, 0.0, 0.0).score() == math.inf
    values = torch.tensor([0.0, 0.0, 0.0, 4.0]).double()
    assert tuple(Skewed.mean(values)) == pytest.approx((1.0, 1.0, 1.1547005 / 2))


def even_normal(count: int) -> torch.Tensor:
    """Quantiles of a normal, (n, 1), in no order."""
    places = torch.randperm(count, generator=seeded(9)).double()
    return torch.special.ndtri((places + 0.5) / count).unsqueeze(1)


def test_a_log_variance_is_tested_less_its_skewness():
    """Of normal gradients the skewness is sqrt(8 / R), that of the logarithm 1.5 sqrt(2 / R) less."""
    found = skewed_variance(gather([{"p": even_normal(1000)}], 1000))
    assert found.skewness == pytest.approx((8 / 1000) ** 0.5, rel=0.1)
    assert found.log().skewness == pytest.approx(found.skewness - 1.5 * found.error / found.value)
    assert found.log().error == pytest.approx((2 / 999) ** 0.5, rel=0.1)


def test_the_smaller_set_has_at_least_the_spread_of_the_larger():
    """400 normal gradients beside 800 of which half are zero: each is taken with the other's relative spread, too.

    By number: 400 with relative error e and 800 with f count as 400 with sqrt(2) f and 800 with e / sqrt(2).
    """
    sparse = torch.cat([even_normal(400), torch.zeros(400, 1)])[torch.randperm(800, generator=seeded(11))]
    small, large = (gather([{"p": one}], len(one)) for one in (even_normal(400), sparse))
    e, f = (one.error / one.value for one in map(gradient_variance, (small, large)))
    exchanged = math.hypot(f * 2**0.5, e * 0.5**0.5)
    assert exchanged > 1.05 * math.hypot(e, f)
    for pair in ((small, large), (large, small)):
        assert variance_in_batch(*pair, 4.0).evidence["error"] == pytest.approx(exchanged / math.log(4))


def test_gradients_that_are_all_the_same_leave_nothing_to_say_of_their_variance():
    """All 3 in both sets: no alarm, and no power; in one of them alone, the variance does not fall as it should.

    Numbers that differ by a millionth have a variance of 1e-12 of their square, which is not rounding from there on; in
    float32 16 units of a square are 1.9e-6, (1.38e-3)^2. Squares of 1e-21 are not told from zero there.
    """
    same, varied = (gather([{"p": one}], 400) for one in (torch.full((400, 1), 3.0).double(), even_normal(400)))
    assert log_ratio(same, same) == (0.0, math.inf, 0.0)
    found = variance_in_batch(same, same, 4.0)
    assert (found.outcome, found.statistic, found.smallest) == ("no power", 0.0, math.inf)
    assert independent_draws({8: same}, same, 8).outcome == "no power"
    law = variance_in_samples({"encoder": (log_ratio(same, same), -1.0)}, 0.05, 399)
    assert (law.outcome, law.statistic, law.smallest) == ("no power", 0.0, math.inf)
    for pair in ((same, varied), (varied, same)):
        assert variance_in_batch(*pair, 4.0).outcome == "fail"
        assert variance_in_samples({"encoder": (log_ratio(*pair), -1.0)}, 0.05, 399).outcome == "fail"
    sizes = {torch.float64: ((1.5e-6, True), (0.5e-6, False)), torch.float32: ((1.6e-3, True), (1.2e-3, False))}
    for dtype, size, known in ((dtype, *one) for dtype, both in sizes.items() for one in both):
        near = gather([{"p": (1 + size * even_normal(400)).to(dtype)}], 400)
        assert math.isfinite(log_ratio(near, near).error) == known
    tiny = gather([{"p": (1e-21 * even_normal(400)).float()}], 400)
    assert log_ratio(tiny, tiny).error == math.inf


def ratio(low: float, high: float, error: float = 0.01):
    """The verdict on squared ratios with these errors whose law has slope 1/2 from K = 8 to 32: four times as much."""
    return ratio_in_samples({"encoder": (Skewed(low, error, 0.0), Skewed(high, error, 0.0), 0.5)}, 999)


def test_the_ratio_in_k_is_tested_by_its_square():
    """At slopes of 0.5 +- 0.45 the second square is 1.1487 to 13.929 times the first: 1 stands, and 0.1 does not.

    0.1 is 0.1297 below 0.22974: over the error 0.01 hypot(1, 1.1487) that is 8.5.
    """
    assert ratio(0.2, 0.8).statistic == 0 and ratio(0.2, 0.8).outcome == "pass"
    low = ratio(0.2, 0.1)
    assert low.outcome == "fail" and low.statistic == pytest.approx(0.129740 / (0.01 * 1.523), rel=1e-3)
    assert ratio(0.2, 4.0).outcome == "fail", "above as well"
    weak = ratio(-0.001, 0.05)
    assert weak.outcome == "no power" and weak.smallest == math.inf


def test_gradients_are_allotted_to_the_point_that_shows_a_parameter():
    """b's gradient is 1/20 of its noise at the start and 1/2 at the end, a's likewise the other way round, less so."""
    noise = torch.randn(800, 2, generator=seeded(10), dtype=torch.float64)

    def point(a: float, b: float) -> Draws:
        return Draws({"a": noise[:, :1] + a, "b": noise[:, 1:] + b})

    start, middle, end = point(5.0, 0.05), point(0.05, 0.05), point(1.0, 0.5)
    assert allotted([start, middle, end], 4000) == [1000, 4000, 7000]
    assert allotted([end, middle, start], 4000) == [7000, 4000, 1000]
    assert allotted([start], 4000) == [4000]
    wide = Draws({"a": noise[:, :1].expand(-1, 90) + 1, "b": noise[:, 1:] + 0.05})
    assert min(allotted([wide, wide, wide], 4000)) >= 20 * 91, "Hotelling's test keeps its 20 for each parameter"
