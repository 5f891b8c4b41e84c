"""What gates would have found: thresholds, errors and smallest effects against values worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from tests.convergence.faults.beds import problem
from vaebench.data.sampling import epochwise
from vaebench.gates import Stage, bounds, correlations, run_gates, walking
from vaebench.gates.certification import FALSE_ALARM
from vaebench.gates.choices import closest_trusted, replicates_for
from vaebench.gates.laws import ASYMPTOTIC, LIGHT, light, variance_in_samples
from vaebench.gates.means import MEAN_LEVEL, PROJECTIONS, mean_p_value, smallest_by_parameter
from vaebench.gates.path import Mismatch, Path
from vaebench.gates.planning import plan_of, watch
from vaebench.gates.randomness import Randomness, randomness
from vaebench.gates.reference import exact_reference, flat
from vaebench.gates.replay import paired_along, replayed
from vaebench.gates.running import watch_run
from vaebench.gates.subject import Subject
from vaebench.gates.sums import errors_found, z_scores
from vaebench.gates.values import bound_value, reports_a_bound
from vaebench.gates.variances import SLOPE, independent_draws, separate_rows, variance_in_batch
from vaebench.gates.verdict import detectable, two_sided
from vaebench.gradients.estimators import analytic_kl, pathwise
from vaebench.gradients.objectives import Objective
from vaebench.measures.moments import gather
from vaebench.measures.probes import gradient_variance
from vaebench.support.skewness import Skewed, reach
from vaebench.support.statistics import smallest_shift
from vaebench.theory.constants import measured_noise
from vaebench.theory.predictions import lower_limit
from vaebench.training.fleet import train
from vaebench.training.optimizers import sgd
from vaebench.training.schedules import constant, inverse_sqrt


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walk(noise: torch.Tensor, exact: torch.Tensor | float = 1.0, gamma: float = 0.5) -> Path:
    """A path of all steps whose gradients are exact ones plus noise (n, S, p), as if of SGD."""
    n = len(noise)
    exact = torch.as_tensor(exact, dtype=torch.float64).expand_as(noise)
    raw, none = exact + noise, noise[:, :, 0] * 0
    every = torch.arange(n)
    return Path(
        every + 1, torch.full((n,), gamma, dtype=torch.float64), noise * 0, raw, raw, none, exact, noise[0] * 0,
        (every, exact + noise.flip(0)), {"a": noise.shape[2]},
    )  # fmt: skip


def test_the_descent_ledger_by_hand():
    """Noise 2, 1, 0 of one member, exact gradient 2, gamma 1/2: sum 3, squares 5, no skewness, so |Z| = 3 / sqrt 5.

    An error r of the size adds r x (1/2) x 4 at each of 3 steps: the smallest is (z + 1.2816) sqrt 5 / 6.
    """
    noise = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64).view(3, 1, 1)
    path = walk(noise, 2.0)
    found = walking.descent(path, path.raw)
    assert found.statistic == pytest.approx((3 - 6e-6) / math.sqrt(5), rel=1e-9)
    assert found.threshold == pytest.approx(4.417173, abs=1e-6)  # the normal's at 5e-6: two comparisons
    assert found.smallest == pytest.approx((found.threshold + 1.281552) * math.sqrt(5) / 6, rel=1e-5)


@pytest.mark.parametrize(("error", "statistic"), [(1e-3, 0.0), (5e-4, 10.0), (0.0, 20 * (1 - 1e-3))])
def test_ledgers_allow_for_the_error_of_their_reference(error, statistic):
    """400 steps that are all 1e-3 off an exact gradient of 1: Z = 20, less 20,000 times the error, 1e-6 at least."""
    path = walk(torch.full((400, 1, 1), 1e-3, dtype=torch.float64))
    assert walking.descent(path, path.raw, error).statistic == pytest.approx(statistic, abs=1e-9)
    assert walking.noise_mean(path, path.raw, seeded(1), error).statistic == pytest.approx(statistic, abs=1e-9)


def test_ledgers_allow_for_the_rounding_of_parameters():
    """A parameter of 1 in float32 and a step of 1/1024 lose 2^-23 x 1024 = 1.22e-4 of a gradient of 1 at each step."""
    path = walk(torch.full((400, 1, 1), 1.5 * 2.0**-13, dtype=torch.float64), gamma=2.0**-10)
    coarse = path._replace(before=torch.ones(400, 1, 1))
    left = 20 * (0.5 * 2.0**-13 - 100 * 2.0**-23) / (1.5 * 2.0**-13)
    assert walking.noise_mean(path, path.raw, seeded(1)).statistic == pytest.approx(20, rel=0.01)
    assert walking.noise_mean(coarse, path.raw, seeded(1)).statistic == pytest.approx(left, rel=1e-6)
    assert walking.descent(coarse, path.raw).statistic == pytest.approx(left, rel=1e-6)


def test_the_smallest_error_of_a_mean_is_found_beyond_rounding():
    """A hundredth of the largest number, over the length of the gradient: (3, 4) has 5."""
    samples = torch.randn(400, 2, generator=seeded(5), dtype=torch.float64)
    mean = torch.tensor([3.0, 4.0], dtype=torch.float64)
    fine, coarse = (smallest_by_parameter(samples, mean, {"a": 2}, 0, rounding)["a"] for rounding in (0.0, 0.01))
    assert coarse - fine == pytest.approx(0.01 * float(samples.abs().max()) / 5)


def test_sums_of_skewed_terms_by_hand():
    """Terms 0, 0, 0, -4: sum -4, squares 16, Z = -1. About their mean squares are 12 and cubes -24: skewness -0.57735.

    The long side is theirs, and Z stays. Terms -4, -4, -4, 0 have Z = -12 / sqrt 48 = -1.73205 and skewness 0.57735;
    times 4/3 it is s = 0.7698: ((1 - 0.44444)^3 - 1) / s + s / 6 = -1.07629 + 0.12830 = -0.94799 is left.
    """
    terms = torch.tensor([[0.0, -4], [0, -4], [0, -4], [-4, 0]], dtype=torch.float64)
    torch.testing.assert_close(z_scores(terms), torch.tensor([1.0, 0.94799]).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(z_scores(terms, 16.0), torch.zeros(2).double())
    assert z_scores(torch.ones(5)).tolist() == pytest.approx(math.sqrt(5))
    assert z_scores(torch.tensor([1.0, math.nan])).tolist() == math.inf
    off = torch.logspace(-6, -4.5, 90).double() * torch.randn(5, 90, generator=seeded(4), dtype=torch.float64)
    torch.testing.assert_close(
        z_scores(3 + off), torch.full((90,), math.sqrt(5)).double()
    )  # third moments are rounding
    found = errors_found(3.0, terms)
    assert found.tolist() == pytest.approx([reach(3.0, 24 / 12**1.5, 1) + 1.281552] * 2)


def test_sgd_is_judged_by_its_moves_and_others_by_their_gradients():
    """A loop that takes half of each step it claims: only what it moved shows it."""
    path = walk(torch.randn(400, 2, 1, generator=seeded(0), dtype=torch.float64), 3.0)
    path = path._replace(moved=path.raw / 2)
    assert walking.descent(path, path.moved).outcome == "fail"
    assert walking.descent(path, path.raw).outcome != "fail"


def test_the_noise_mean_pays_for_every_direction():
    """One coordinate and 64 directions; an offset of (z + 1.2816) / sqrt(n S) root mean squares is found.

    Noise that comes with either sign has no skewness.
    """
    half = torch.randn(100, 2, 1, generator=seeded(1), dtype=torch.float64)
    path = walk(torch.cat([half, -half]))
    found = walking.noise_mean(path, path.raw, seeded(2))
    assert found.evidence["directions"] == 65
    assert found.threshold == pytest.approx(stats.norm.isf(1e-5 / 65))
    assert found.smallest == pytest.approx((found.threshold + 1.281552) / 20, rel=1e-5)


def test_successive_noise_looks_at_lags_up_to_512_or_half_of_the_run():
    noise = torch.randn(1200, 1, 1, generator=seeded(3), dtype=torch.float64)
    long, short = (correlations.successive(path, path.raw) for path in (walk(noise), walk(noise[:100])))
    assert (long.evidence["lags"], short.evidence["lags"]) == (512, 50)
    assert long.threshold == pytest.approx(stats.norm.isf(1e-5 / 514))
    late = noise.clone()
    late[500:] += noise[:-500]  # what returns after 500 steps
    returning = walk(late)
    assert correlations.successive(returning, returning.raw).outcome == "fail"


def test_successive_noise_by_hand():
    """Noises 3, 1, -2, 2 along the signs of those before: 1, -2, -2; along those of 3, 3.85, 1.6575: 1, -2, 2.

    Lag one: sum -3, squares 9, so Z = -1; about their mean squares are 6 and cubes 6, the skewness is 6 / 6^1.5, times
    4/3 s = 0.54433: -(1 - 0.18144 + 0.01097) + 0.09072 = -0.73881 is left. A correlation of one would give 3, 1 and 2,
    the lengths of those before.
    """
    path = walk(torch.tensor([3.0, 1.0, -2.0, 2.0], dtype=torch.float64).view(4, 1, 1))
    found = correlations.successive(path, path.raw)
    last = torch.tensor([1.0, -2.0, -2.0], dtype=torch.float64)
    assert found.evidence["lag one"] == pytest.approx(0.73881, rel=1e-5)
    assert found.evidence["memory"] == pytest.approx(float(z_scores(torch.tensor([1.0, -2.0, 2.0]).double())))
    needed = float(errors_found(found.threshold, last))
    assert found.threshold == pytest.approx(stats.norm.isf(1e-5 / 4))
    assert found.smallest == pytest.approx(needed * math.sqrt(9) / 3 / 2)


def test_members_by_hand():
    """Noises (1, 1), (1, -1), (1, 1), (1, -1): terms 1, -1, 1, -1, the second member's along the first's.

    Three members of 1, two steps: all terms are 1, and would be at a correlation of one, so Z = 4 / sqrt 4.

    Noises 2 and 0 of a third member behind two of 1: terms 1, 2 and 1, 0; squares of a step are 2 and 2/3 on average.
    Those before are one of length 1 and two of length 2: a correlation of one would give 2, 2, 2/3 and 2/3.
    """
    noise = torch.tensor([[1.0, 1.0], [1.0, -1.0]] * 2, dtype=torch.float64).unsqueeze(-1)
    path = walk(noise)
    found = correlations.members(path, path.raw)
    assert found.statistic == 0 and found.threshold == pytest.approx(4.264891, abs=1e-6)
    assert found.smallest == pytest.approx(detectable(4.264890794) * math.sqrt(4) / 4, rel=1e-5)
    path = walk(torch.ones(2, 3, 1, dtype=torch.float64))
    three = correlations.members(path, path.raw)
    assert three.statistic == pytest.approx(2)
    assert three.smallest == pytest.approx(detectable(4.264890794) * math.sqrt(4) / 4, rel=1e-5)
    path = walk(torch.tensor([[1.0, 1.0, 2.0], [1.0, 1.0, 0.0]], dtype=torch.float64).unsqueeze(-1))
    terms = torch.tensor([1.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    expected = float(errors_found(4.264890794, terms)) * math.sqrt(6) / 4 / (4 / 3)
    assert correlations.members(path, path.raw).smallest == pytest.approx(expected, rel=1e-5)


def test_noise_that_is_zero_says_nothing():
    """Of a model without noise the scores are zero, and any correlation would have been found."""
    path = walk(torch.zeros(6, 3, 2, dtype=torch.float64))
    for found in (correlations.successive(path, path.raw), correlations.members(path, path.raw)):
        assert (found.statistic, found.smallest, found.outcome) == (0.0, 0.0, "pass")


def test_successive_skewed_noise_keeps_its_level():
    """Scores of 64 lags of 300 runs of 1,920 lognormal noises: beyond the level 1e-3 are 19.2 of 19,200, or fewer.

    More than 45 have the chance 2e-7. By products of noises in place of directions there are 55.
    """
    noise = torch.randn(300, 1920, 1, 1, generator=seeded(21), dtype=torch.float64).exp() - math.exp(0.5)
    critical = stats.norm.isf(5e-4)
    beyond = sum(int((correlations.lag_scores(one, 64) > critical).sum()) for one in noise)
    products = [noise[:, lag:] * noise[:, :-lag] for lag in range(1, 65)]
    plain = sum(int((z_scores(one.squeeze().T) > critical).sum()) for one in products)
    assert beyond <= 45 < plain


def test_one_noise_for_all_members_is_found_and_noise_of_their_own_is_not():
    noise = torch.randn(120, 16, 3, generator=seeded(12), dtype=torch.float64)
    for shared, outcome in ((0.0, "pass"), (0.5, "fail")):
        path = walk(noise + shared * noise[:, :1])
        assert correlations.members(path, path.raw).outcome == outcome


def test_the_noise_size_by_hand():
    """Squares 4 and 1 beside 1 and 1 of controls: (3/5 + 0) / sqrt(9/25) = 1; half of twice the share is left of r."""
    noise = torch.tensor([[[2.0]], [[1.0]]], dtype=torch.float64)
    path = walk(noise)
    path = path._replace(control=(torch.arange(2), torch.tensor([[[2.0]], [[2.0]]], dtype=torch.float64)))
    found = walking.noise_size(path, path.raw)
    share = detectable(4.264890794) * 0.6 / 2
    assert found.statistic == pytest.approx(1.0) and found.evidence["ratio"] == pytest.approx(2.5)
    assert share > 1 and found.smallest == math.inf
    many = path._replace(control=(torch.arange(2), path.raw.clone()))
    assert walking.noise_size(many, many.raw).statistic == 0.0
    wide = walk(torch.randn(4000, 1, 1, generator=seeded(1), dtype=torch.float64))
    found = walking.noise_size(wide, wide.raw)
    terms = wide.raw - 1, wide.control[1] - 1
    ratio = (terms[0].square() - terms[1].square()) / (terms[0].square() + terms[1].square())
    share = detectable(4.264890794) * float(ratio.square().sum().sqrt()) / 4000
    assert found.smallest == pytest.approx(2 * share / (1 - share), rel=1e-5)


@pytest.mark.parametrize("slope", [-1.5, -0.5])
def test_a_law_in_k_may_be_missed_on_either_side(slope):
    """Half a unit off with an error of 0.01: less 4.26 errors, a little more at 63 degrees of freedom."""
    run = math.log(4)
    found = variance_in_samples({"encoder": (Skewed(slope * run, 0.01 * run, 0.0), -1.0)}, SLOPE, 63)
    assert found.outcome == "fail" and found.statistic == pytest.approx(0.5 - 0.01 * two_sided(1, 63))


def test_a_run_of_which_no_step_was_seen_is_no_right_one():
    assert walking.rule(None).outcome == "fail" and walking.rule(Mismatch(0.5, 1)).outcome == "pass"


def test_the_envelope_takes_the_noise_of_its_worst_fifty_steps():
    """Of 100 steps with noise 1 and then 3, sigma^2 is 9 and no average of both, which were 5."""
    noise = torch.cat([torch.ones(50, 4, 1), 3 * torch.ones(50, 4, 1)]).double()
    path = walk(noise, gamma=0.1)
    found = bounds.Curvature(torch.ones(100, 1, dtype=torch.float64), (0, 100), noise[:2, :0])
    values = np.cumsum(np.ones((4, 101)), 1) * -0.1
    assert bounds.envelope(path, values, found, path.raw, inverse_sqrt(0.1)).evidence["noise"] == pytest.approx(9.0)


def test_what_has_a_law_in_the_number_of_samples_is_light_by_effective_samples():
    """Of K = 64 samples 0.6 must be effective, in every row; one row of heavy weights is enough to leave it out."""
    model, data = problem(32, 1)
    subject = Subject(model, pathwise, Objective(4, 0.0), data, 8, sgd)
    assert LIGHT == 0.6 and light(replace(subject, objective=Objective(4)), 1e6 * data[:4], seeded(1))
    assert not light(subject, 1e3 * data[:4], seeded(1))
    with torch.no_grad():
        model.W.mul_(0)
        model.V.mul_(0)
        model.eta.mul_(0)
    assert light(subject, data[:4], seeded(1))  # posterior and prior agree, and all weights are one


def test_rows_that_touch_each_other_by_a_millionth_are_not_separate():
    """Rounding explains 1e5 units in the last place, 2.2e-11 of the gradient."""
    model, data = problem(16, 2)

    def touching(model, x, noise, objective):
        value = analytic_kl(model, x, noise, objective)
        return value + 1e-6 * value.mean()

    def outcome(estimator):
        return separate_rows(Subject(model, estimator, Objective(), data, 4, sgd), seeded(2)).outcome

    assert outcome(touching) == "fail" and outcome(analytic_kl) == "pass"


def test_a_value_is_the_bound_if_it_varies_as_the_bound_does():
    """A hundredth of the bound's own spread may be left: of a constant nothing is, of a tenth of the noise too much."""
    model, data = problem(16, 2)
    subject = Subject(model, pathwise, Objective(), data, 8, sgd)

    def reports(value):
        return reports_a_bound(subject, value, model, seeded(3))

    assert reports(lambda *given: pathwise(*given) + 7.0)
    assert not reports(lambda *given: 1.1 * pathwise(*given))
    assert not reports(lambda model, x, noise, objective: analytic_kl(model, x, noise, objective))


def test_adams_ledger_opens_after_fifty_steps():
    """The exact gradients of the first 50 steps of 60 are on neither side: with them the left is six times it."""
    model, data = problem(16, 2)
    reference = exact_reference(model, Objective(), data)
    assert reference is not None
    like = {f"model.{name}": p.detach().unsqueeze(0) for name, p in model.named_parameters()}
    size = sum(p.numel() for p in like.values())
    noise = torch.randn(60, 2, size, generator=seeded(4), dtype=torch.float64)

    def sides(early):
        path = walk(noise, torch.cat([torch.full((50, 1, 1), early), torch.ones(10, 1, 1)]).double(), gamma=1e-3)
        path = path._replace(
            before=flat(like).expand(60, 2, size), end=flat(like).expand(2, size), values=torch.zeros(60, 2).double()
        )
        found = bounds.Curvature(torch.full((60, 1), 0.1, dtype=torch.float64), (0, 60), noise[:2, :0])
        verdict = bounds.adam_ledger(path, reference, found, like)
        return verdict.evidence

    still, moving = sides(0.0), sides(1.0)
    assert still["steps"] == 10 and 0.5 < still["measured"] / moving["measured"] < 2


def test_the_bounds_use_students_t_over_seeds():
    """16 seeds: 6.1091 instead of the normal's 4.2649; 4 seeds: 47.9, with which nothing is found."""
    noise = torch.randn(60, 4, 1, generator=seeded(4), dtype=torch.float64)
    path = walk(noise)
    values = np.cumsum(np.ones((4, 61)), 1) * -0.1
    found = bounds.Curvature(torch.full((60, 1), 0.1, dtype=torch.float64), (0, 60), noise[:2, :0])
    assert two_sided(1, 15) == pytest.approx(6.108868, abs=1e-6)
    verdict = bounds.telescoped(path, values, found, path.raw)
    assert verdict.threshold == pytest.approx(47.9277, abs=1e-3)
    margin = verdict.evidence["measured"] * verdict.smallest / (verdict.threshold + 1.637744)  # t(3) at 0.9
    assert margin > 0 and bounds.TOLERANCE == 0.05 and bounds.BURN_IN == 50 and bounds.SAFETY == 1.5


def test_limits_of_theory_are_students():
    """Of 1, 2, 3, 4: mean 2.5, error 0.645497; t(3) is 10.2145 at 0.999 and -22.2037 at 1e-4."""
    squares = measured_noise(np.sqrt([[1.0], [2.0], [3.0], [4.0]]), mean=np.zeros(1))
    assert squares.value == pytest.approx(2.5 + 10.214532 * 0.6454972, rel=1e-6)
    assert lower_limit(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(2.5 - 22.203742 * 0.6454972, rel=1e-6)


def test_a_mean_pays_for_every_direction():
    """100 parameters, 800 draws, coordinate 0 at exactly t: p is 2 (100 + 64 + 1) P(t(799) > t)."""
    samples = torch.randn(800, 100, generator=seeded(5), dtype=torch.float64)
    samples = samples - samples.mean(0)
    mean = torch.zeros(100, dtype=torch.float64)
    mean[0] = -8 * float(samples[:, 0].std()) / math.sqrt(800)
    p_value = mean_p_value(samples, mean, seeded(6))
    assert p_value <= 2 * 165 * stats.t.sf(7.99, 799) and p_value >= 2 * 165 * stats.t.sf(8.5, 799)
    assert (MEAN_LEVEL, PROJECTIONS) == (1e-8, 64)
    assert pytest.approx(15 * 2e-5 + 6e-8) == FALSE_ALARM


def test_the_smallest_shift_of_hotellings_test():
    """One coordinate: T^2 is t^2, so a shift of (t(0.99995) + z-like) errors; simulated with power 0.9."""
    half, level = torch.randn(200, 1, generator=seeded(2), dtype=torch.float64), 1e-4
    samples = torch.cat([half, -half])  # 400 without skewness
    samples = samples / samples.std()
    shift = smallest_shift(samples, torch.ones(1), level)
    noncentral, critical = torch.randn(200_000, generator=seeded(1)), stats.t.isf(level / 2, 399)
    power = ((noncentral + 20 * shift).abs() > critical).double().mean()  # the error's own error is 3.5 % of it
    assert float(power) == pytest.approx(0.9, abs=0.01)
    assert smallest_shift(2 * samples, torch.ones(1), level) == pytest.approx(2 * shift)
    assert smallest_shift(samples.expand(-1, 2) * torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), level) == 0


def test_the_smallest_shift_of_skewed_samples_is_that_of_the_transformed_t():
    """One coordinate of 400 numbers skewed by s: T must be as large as `reach` says, at which its power is 0.9."""
    skewed = torch.rand(400, 1, generator=seeded(3), dtype=torch.float64).log()
    shift, level = smallest_shift(skewed, torch.ones(1), 1e-4), 1e-4
    far = reach(float(stats.t.isf(level / 2, 399)), float(stats.skew(skewed[:, 0].numpy())), 400)
    errors = shift / (float(skewed.std()) / 20)
    assert stats.ncf.sf(far**2, 1, 399, errors**2) == pytest.approx(0.9, abs=1e-4)
    assert far > 1.05 * stats.t.isf(level / 2, 399)


@pytest.mark.parametrize("count", [2000, 100], ids=["Hotelling", "t"])
def test_a_shift_of_the_stated_size_is_found_in_nine_of_ten(count):
    """200 repetitions at the stated smallest error of one parameter: 160 to 198 alarms, missed by chance in 1e-4."""
    generator, size = seeded(7), 8
    gradient, found = torch.linspace(1, 2, size, dtype=torch.float64), 0
    for _ in range(200):
        noise = torch.randn(count, size, generator=generator, dtype=torch.float64)
        smallest = smallest_by_parameter(noise + gradient, gradient, {"a": 4, "b": 4}, PROJECTIONS)["a"]
        shift = torch.cat([smallest * gradient[:4], torch.zeros(4, dtype=torch.float64)])
        claimed = gradient if count == 2000 else torch.cat([gradient[:4], torch.zeros(4, dtype=torch.float64)])
        off = noise + shift + claimed
        found += mean_p_value(off, claimed, generator) < MEAN_LEVEL
    assert 160 <= found <= 198


def test_the_value_has_t_of_its_own_draws_and_a_rounding_of_one_in_a_million():
    """120 draws at one point, beside the exact value and the trusted one: t(119) at 2e-5 over two comparisons."""
    model, data = problem(32, 2)
    subject = Subject(model, analytic_kl, Objective(), data, 8, sgd)
    point = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    honest = bound_value(subject, [point], None, seeded(8), pathwise, model)
    assert honest.statistic == 0 and honest.threshold == pytest.approx(stats.t.isf(1e-5, 119))
    offset = {}
    for name, off in (("small", 0.5e-6), ("large", 5e-6)):

        def reports(model, x, noise, objective, off=off):
            value = pathwise(model, x, noise, objective)
            return value + off * (1 + value.mean().abs())

        offset[name] = bound_value(subject, [point], None, seeded(8), reports, model)
    assert offset["small"].statistic == 0 and offset["large"].outcome == "fail"


def test_a_slope_allows_a_twentieth_and_its_error():
    assert (SLOPE, ASYMPTOTIC) == (0.05, 0.45)
    small, large = (
        gather([{"p": scale * torch.randn(800, 3, generator=seeded(9), dtype=torch.float64)}], 800)
        for scale in (2.0, 1.0)
    )
    found = variance_in_batch(small, large, 4.0)
    assert found.evidence["slope"] == pytest.approx(-1)
    of_logs = [one.error / one.value for one in (gradient_variance(part) for part in (small, large))]
    assert found.evidence["error"] == pytest.approx(math.hypot(*of_logs) / math.log(4))
    critical = stats.t.isf(1e-5, 799)  # the skewness of the two is the same, and cancels
    assert found.threshold == pytest.approx(0.05 + critical * found.evidence["error"], rel=1e-5)
    assert found.smallest == pytest.approx(found.threshold + stats.t.ppf(0.9, 799) * found.evidence["error"], rel=1e-6)
    assert variance_in_batch(small, large, 8.0).outcome == "fail"


def filled(noise: torch.Tensor, indices: torch.Tensor, size: int = 50) -> Randomness:
    kept = Randomness(size, noise.shape[2:])
    kept.enter(torch.arange(1, len(noise) + 1), indices.flatten(0, 1), noise.flatten(0, 1), noise.shape[1])
    return kept


def drawn(steps: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    generator = seeded(10)
    noise = torch.randn(steps, 4, 2, 8, 2, generator=generator, dtype=torch.float64)
    return noise, torch.randint(50, (steps, 4, 8), generator=generator)


@pytest.mark.parametrize(("steps", "many"), [(782, True), (781, False)])
def test_third_and_fourth_powers_are_judged_from_a_hundred_thousand_numbers_on(steps, many):
    """128 numbers a step: 100,096 and 99,968."""
    scores = filled(*drawn(steps)).noise_scores()
    assert {"power 3", "power 4"}.issubset(scores) == many


def test_scores_of_what_was_drawn_by_hand():
    """Noise 1, -1 throughout: mean 0, squares 1; 4 draws of 2 of the examples 0, 1: expected counts 4, chi-square 0."""
    noise = torch.tensor([1.0, -1.0], dtype=torch.float64).view(1, 1, 1, 2, 1).expand(4, 1, 1, 2, 1)
    kept = filled(noise, torch.tensor([[0, 1]]).expand(4, 1, 2), 2)
    scores = kept.noise_scores()
    assert scores["power 1"] == 0 and scores["power 2"] == 0 and "power 4" not in scores
    assert scores["independence within one draw"] == pytest.approx(-math.sqrt(2))  # sums 0: (0 - 1) sqrt(4 / 2)
    assert scores["successive draws"] == pytest.approx(3 * 2 / math.sqrt(2) / math.sqrt(3))  # products 2 / sqrt 2
    assert (kept.repeated, kept.doubled, kept.batches) == (3, 0, 4)


def test_counts_that_are_too_even_have_a_score_from_the_lower_tail():
    """10 draws of both of two examples: chi-square 0, the tail is held at e^-700, whose quantile is -37.28."""
    kept = filled(torch.ones(10, 1, 1, 2, 1, dtype=torch.float64), torch.tensor([[0, 1]]).expand(10, 1, 2), 2)
    assert kept.batch_scores()["examples' counts"] == pytest.approx(-37.28, abs=0.02)


def test_pairs_of_equal_examples_by_hand():
    """60 minibatches (0, 0, 1, 1) of two examples: 120 pairs; 180 expected with variance 180 (1 - 1/2)."""
    rows = torch.tensor([[0, 0, 1, 1]]).expand(60, 1, 4)
    kept = filled(torch.ones(60, 1, 1, 4, 1, dtype=torch.float64), rows, 2)
    assert kept.doubled == 120
    assert kept.batch_scores()["doubled examples"] == pytest.approx(-60 / math.sqrt(90))


def test_what_is_drawn_as_claimed_passes_and_the_smallest_width_is_by_hand():
    noise, indices = drawn()
    found = randomness(filled(noise, indices), True)
    assert found.outcome == "pass", str(found)
    numbers = 400 * 4 * 2 * 8 * 2
    assert found.smallest == pytest.approx((found.threshold + 1.281552) * math.sqrt(2 / numbers), rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda noise, indices: (0.95 * noise, indices),
        lambda noise, indices: (noise + 0.05, indices),
        lambda noise, indices: (noise[:, :1].expand_as(noise), indices),
        lambda noise, indices: (noise[:, :, :1].expand_as(noise), indices),
        lambda noise, indices: (noise[:, :, :, :1].expand_as(noise), indices),
        lambda noise, indices: (torch.cat([noise[:256], noise[: len(noise) - 256]]), indices),
        lambda noise, indices: (noise.clamp(-1.5, 1.5), indices),
        lambda noise, indices: (noise, indices.clamp(max=48)),
        lambda noise, indices: (noise, epochwise(50, 8, seeded(0))(1600).view(400, 4, 8)),
        lambda noise, indices: (noise, torch.rand(400, 4, 50, generator=seeded(1)).topk(8, -1).indices),
    ],
    ids=["narrow", "shifted", "one for all members", "one for all samples", "one for all rows", "periodic", "cut",
         "one example never drawn", "epochs", "without repetition"],
)  # fmt: skip
def test_what_is_drawn_otherwise_is_found(change):
    assert randomness(filled(*change(*drawn())), True).outcome == "fail"


def test_another_sampler_is_not_held_against_uniform_draws():
    noise, _ = drawn()
    epochs = epochwise(50, 8, seeded(0))(1600).view(400, 4, 8)
    assert randomness(filled(noise, epochs), False).outcome == "pass"


def ledger(fault: torch.Tensor | float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator, shape = seeded(11), (400, 4, 3)
    noise, other = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    trusted = 1 + noise
    return torch.arange(1, 401), 0.1 * other + fault, trusted


def test_the_paired_ledger_by_hand():
    """Two steps, two members, one parameter: t = (1, 3), (1, 3), d = (2, -1), (2, -1).

    The weight is the mean of the trusted gradients before, none and then 2: terms 0, 0, 4, -2, whose Z is 2 / sqrt 20,
    and of the coordinate 2 / sqrt 10. Progress is 2 + 6. Their mean is 1/2, squares about it are 19 and cubes 27.
    """
    steps = torch.tensor([1, 2])
    off, trusted = (torch.tensor([row, row], dtype=torch.float64).unsqueeze(-1) for row in ([2.0, -1.0], [1.0, 3.0]))
    found = paired_along((steps, off, trusted), {"a": 1})
    assert found.statistic == pytest.approx(2 / math.sqrt(10), rel=1e-9)
    assert found.threshold == pytest.approx(stats.norm.isf(1e-5 / 4))
    far = reach(found.threshold, 27 / 19**1.5, 1)
    assert found.smallest == pytest.approx((far + 1.281552) * math.sqrt(20) / 8, rel=1e-6)


def test_weights_of_the_paired_ledger_are_known_before_the_step():
    """Of trusted gradients 1, 2, .. in 120 steps, a difference in step 100 has the mean of 50 to 99 as its weight.

    What the gradient is at step 100 and later moves no weight before.
    """
    steps, trusted = torch.arange(1, 121), torch.arange(1.0, 121.0, dtype=torch.float64).view(120, 1, 1)
    off = torch.where(steps == 100, 1.0, 0.0).double().view(120, 1, 1)
    found = paired_along((steps, off, trusted), {"a": 1})
    weights = [sum(range(max(1, k - 50), k)) / min(k - 1, 50) for k in range(2, 121)]
    assert weights[98] == 74.5
    progress = sum(weight * k for k, weight in enumerate(weights, 2))
    skewness = (1 - 3 / 120 + 2 / 120**2) / (1 - 1 / 120) ** 1.5  # of one term among zeros
    assert found.smallest == pytest.approx((reach(found.threshold, skewness, 1) + 1.281552) * 74.5 / progress, rel=1e-6)
    later = torch.where(steps.view(120, 1, 1) < 100, trusted, -1000.0)
    assert paired_along((steps, off, later), {"a": 1}).statistic == pytest.approx(found.statistic)


def test_a_fault_of_fifty_steps_is_found_wherever_it_is():
    assert paired_along(ledger(), {"a": 2, "b": 1}).outcome == "pass"
    for first in (0, 137, 350):
        fault = torch.zeros(400, 1, 3, dtype=torch.float64)
        fault[first : first + 50, :, 2] = 0.06
        assert paired_along(ledger(fault), {"a": 2, "b": 1}).outcome == "fail"


def test_replayed_steps_leave_no_room_for_fifty():
    assert replayed(Mismatch(0.5, 3), 1, torch.float64).outcome == "pass"
    assert replayed(Mismatch(0.5, 3), 49, torch.float64).outcome == "pass"
    assert replayed(Mismatch(0.5, 3), 51, torch.float64).outcome == "no power"
    assert replayed(Mismatch(1.01, 3), 1, torch.float64).outcome == "fail"


@pytest.mark.parametrize(("size", "longest"), [(26, 1), (2000, 1), (2001, 49)])
def test_random_steps_are_replayed_in_every_stretch(size, longest):
    chosen = watch(plan_of(1000, 4, 800, 3), 4, size, "quadrature")
    assert chosen.longest == longest
    gaps = np.diff([0, *sorted(chosen.replayed), 1001])
    assert gaps.max() <= longest + 1
    assert set(range(1, 81)) <= chosen.exact and len(chosen.exact) == 120
    assert chosen.exact != watch(plan_of(1000, 4, 800, 4), 4, size, "quadrature").exact, "the seed chooses them"
    for seed in range(30):  # a pair of neighbours in each of twenty parts of 46 steps
        pairs = np.array(sorted(watch(plan_of(1000, 4, 800, seed), 4, size, "quadrature").exact)[80:]).reshape(20, 2)
        assert (pairs[:, 1] == pairs[:, 0] + 1).all()
        assert ((pairs - 81) // 46 == np.arange(20)[:, None]).all()
    if size > 2000:  # one of each 25, at a place that no loop can know: 40 draws of 25 places
        places = [(step - 1) % 25 for step in sorted(chosen.replayed)]
        assert len(places) == 40 and len(set(places)) > 10
        assert chosen.replayed != watch(plan_of(1000, 4, 800, 4), 4, size, "quadrature").replayed


@pytest.mark.parametrize(("members", "held"), [(2, 209), (4, 104)])
def test_as_many_steps_are_watched_as_are_held(members, held):
    """2^24 numbers are 209 steps of two members of 40,000 numbers, and 104 of four."""
    assert len(watch(plan_of(1000, members, 800, 3), members, 40_000, "closed form").exact) == held


def test_no_gradients_are_drawn_where_parameters_are_beyond_a_million():
    """Each of 100 steps adds 2e4 to every parameter: 2.4e5 after twelve of them, 2e6 in the end."""
    model, data = problem(16, 2)

    def growing(model, x, noise, objective):
        return sum(p.sum() for p in model.parameters()).expand(len(x))

    run = watch_run(
        Subject(model, growing, Objective(), data, 8, sgd),
        constant(2e4),
        None,
        None,
        plan_of(100, 2, 800, 0),
        [].append,
    )
    assert list(run.points) == ["step 0", "step 12"]


def test_no_estimator_stands_beside_itself():
    model, data = problem(16, 2)
    for mine in (analytic_kl, pathwise):
        beside = closest_trusted(Subject(model, mine, Objective(), data, 8, sgd), model, plan_of(100, 2, 800, 0))
        assert beside.estimator is not mine


def test_a_budget_buys_replicates():
    """The smallest error falls as the root: half of the pilot's takes four times the gradients, a multiple of 8."""
    model, data = problem(64, 2)
    subject = Subject(model, analytic_kl, Objective(), data, 8, sgd)
    plan = plan_of(100, 2, 800, 0)
    exact = exact_reference(model, Objective(), data)
    first, second = (replicates_for(subject, resolution, plan, exact, model) for resolution in (0.02, 0.01))
    assert first % 8 == second % 8 == 0 and second == pytest.approx(4 * first, rel=0.02)
    with pytest.raises(ValueError, match="A resolution of 1e-07 would take"):
        replicates_for(subject, 1e-7, plan, exact, model)
    with pytest.raises(ValueError, match="budget must be positive"):
        replicates_for(subject, 0.0, plan, exact, model)


def test_a_loop_that_does_not_say_its_noise_is_not_replayed_and_that_is_said():
    model, data = problem(64, 2)
    said: list[Stage] = []

    def silent(*arguments, observe=None, **options):
        return train(*arguments, observe=lambda step: observe(step._replace(noise=None)), **options)

    found = run_gates(
        model, analytic_kl, Objective(), data, trainer=silent, steps=100, members=2, replicates=800,
        progress=said.append,
    )  # fmt: skip
    assert "replay" not in {verdict.gate for verdict in found}
    assert Stage("replay and randomness", "the training loop does not say what noise it drew") in said


def test_a_certificate_judges_sgd_by_what_it_moved():
    """Half of every claimed step is taken: the ledger of the moves shows it, that of the gradients would not."""
    model, data = problem(64, 2)

    def half(*arguments, **options):
        return train(*arguments[:5], lambda n: arguments[5](n) / 2, *arguments[6:], **options)

    found = run_gates(model, analytic_kl, Objective(), data, trainer=half, steps=100, members=6, replicates=800)
    assert {v.gate: v.outcome for v in found}["descent ledger"] == "fail"


def test_fresh_gradients_of_one_batch_size_control_all():
    """4,000 normal gradients of variance 1 at B = 8: at B = 16 the loop's have 1/2, and 0.6 is 20 % too much.

    A log variance has the error sqrt(2 / 3999) = 0.0224, so |z| of log 1.2 = 0.182 is 0.182 / 0.0316 = 5.8.
    """
    normal = torch.randn(3, 4000, 1, generator=seeded(8), dtype=torch.float64)
    normal = (normal - normal.mean(1, keepdim=True)) / normal.std(1, keepdim=True)
    fresh, small, large = (
        gather([{"w": part}], 4000)
        for part in normal * torch.tensor([1, 1, 0.5**0.5], dtype=torch.float64).view(3, 1, 1)
    )
    found = independent_draws({8: small, 16: large}, fresh, 8)
    assert found.outcome == "pass" and found.statistic == pytest.approx(0, abs=1e-5)
    assert found.threshold == pytest.approx(stats.t.isf(5e-6, 3999))
    wide = independent_draws({8: small, 16: gather([{"w": normal[2] * 0.6**0.5}], 4000)}, fresh, 8)
    assert wide.outcome == "fail" and wide.evidence["worst"] == 16
    assert wide.statistic == pytest.approx(math.log(1.2) / math.sqrt(4 / 3999), rel=0.05)
    assert wide.smallest == pytest.approx(math.expm1(detectable(wide.threshold) * math.sqrt(4 / 3999)), rel=0.05)
