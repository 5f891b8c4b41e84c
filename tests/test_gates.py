"""Gates: what they measure equals an oracle, what they refuse is said, and nothing they meet makes them crash."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.convergence.faults.beds import problem
from vaebench.data import linear_gaussian
from vaebench.gates import FALSE_ALARM, Stage, Verdict, bounds, certification, judge, run_gates
from vaebench.gates.correlations import lag_scores
from vaebench.gates.means import mean_p_value
from vaebench.gates.path import Path, mismatch
from vaebench.gates.reference import Reference, exact_reference, flat
from vaebench.gates.sums import z_scores
from vaebench.gates.verdict import detectable, two_sided
from vaebench.gradients.estimators import analytic_kl, pathwise
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.measures.probes import exact_gradient
from vaebench.models import deep_gaussian_vae, from_encoder_decoder, linear_vae
from vaebench.theory.problems import linear
from vaebench.training.fleet import train
from vaebench.training.schedules import constant

QUICK = {"steps": 100, "members": 2, "replicates": 800}


def by_gate(verdicts):
    return {verdict.gate: verdict for verdict in verdicts}


def failed(verdicts):
    """Short runs have no power in some gates; what must not be is that a correct one fails."""
    return [str(verdict) for verdict in verdicts if verdict.outcome == "fail"]


def test_a_verdict_is_a_sentence_and_never_nan():
    text = str(judge("mean", "The mean is zero", 2.0, 4.5, 1e-5, {"draws": 500}))
    assert (
        text
        == "pass mean: The mean is zero; measured 2, at most 4.5 allowed (draws 500; a false alarm has p <= 1e-05)."
    )
    lost = judge("mean", "The mean is zero", math.nan, 4.5, 1e-5)
    assert not lost.passed and lost.statistic == math.inf
    with pytest.raises(ValueError, match="'mean' is NaN"):
        Verdict("claim", math.nan, 1.0, gate="mean")


def test_a_gate_that_could_not_have_failed_has_no_power_and_does_not_pass():
    """`smallest` at the limit is enough, above it is not; a failure stays a failure; NaN finds nothing."""

    def outcome(statistic, smallest, limit):
        verdict = judge("g", "it holds", statistic, 2.0, 1e-5, smallest=smallest, limit=limit, unit="nats")
        assert verdict.passed == (verdict.outcome == "pass") == verdict.to_dict()["passed"]
        return verdict.outcome

    assert [outcome(1.0, s, 0.1) for s in (None, 0.1, 0.11, math.inf, math.nan)] == ["pass"] * 2 + ["no power"] * 3
    assert outcome(2.0, 5.0, None) == "pass"
    assert outcome(2.1, 0.01, 0.1) == outcome(2.1, 5.0, 0.1) == "fail"
    with pytest.raises(ValueError, match="smallest effect of 'g' is NaN"):
        Verdict("claim", 1.0, 2.0, gate="g", smallest=math.nan)


def test_the_smallest_effect_is_said_in_text_and_as_a_dictionary():
    verdict = judge("g", "it holds", 1.0, 2.0, 1e-5, {"n": 3}, smallest=0.25, limit=0.125, unit="nats")
    assert (
        str(verdict) == "NO POWER g: it holds; measured 1, at most 2 allowed; finds 0.25 nats, must find 0.125 "
        "(n 3; a false alarm has p <= 1e-05)."
    )
    assert verdict.to_dict() == {
        "gate": "g", "claim": "it holds", "statistic": 1.0, "threshold": 2.0, "outcome": "no power", "passed": False,
        "false_alarm": 1e-5, "smallest": 0.25, "limit": 0.125, "unit": "nats", "evidence": {"n": 3},
    }  # fmt: skip


def test_levels_and_powers_by_hand():
    """2e-5 two-sided over 1 and 5 comparisons: normal quantiles of 1 - 1e-5 and 1 - 2e-6; t with 9 degrees."""
    assert two_sided(1) == pytest.approx(4.264891, abs=1e-6)
    assert two_sided(5) == pytest.approx(4.611382, abs=1e-6)
    assert two_sided(1, 9) == pytest.approx(8.102058, abs=1e-6)
    assert detectable(4.0) == pytest.approx(4.0 + 1.281552, abs=1e-6)
    assert detectable(4.0, 9) == pytest.approx(4.0 + 1.383029, abs=1e-6)


def test_the_closed_form_and_its_curvature():
    model, data = problem(32, 2)
    reference = exact_reference(model, Objective(beta=1.3), data)
    assert reference is not None and reference.kind == "closed form"
    loss = Loss(model, pathwise, Objective(beta=1.3))
    start = {name: torch.stack([p, 0.9 * p]) for name, p in own_parameters(loss).items()}
    values, gradients = reference.evaluate(start)
    expected = exact_gradient(loss, data)
    torch.testing.assert_close(gradients[0], torch.cat([g.flatten() for g in expected.values()]))
    blocks, scatter = linear.LinearParameters(model.W, model.V, model.eta), data.T @ data / len(data)
    torch.testing.assert_close(values[0], linear.objective(blocks, scatter, 0.5, 1.3).detach())
    torch.testing.assert_close(reference.hessians(start)[0], linear.hessian(blocks, scatter, 0.5, 1.3).detach())


@pytest.mark.parametrize(("latents", "tolerance"), [(1, 1e-5), (2, 1e-3)])
def test_the_quadrature_is_the_closed_form_where_both_are_known(latents, tolerance):
    """IWAE of one sample is the ELBO. Weights that are too wide for the rules leave no reference."""
    model, data = problem(4, latents)
    data = data / latents**2
    known, found = (exact_reference(model, Objective(1, alpha), data) for alpha in (1.0, 0.0))
    assert known is not None and found is not None and found.kind == "quadrature"
    start = {name: p.unsqueeze(0) for name, p in own_parameters(known.loss).items()}
    for exact, integral in zip(known.evaluate(start), found.evaluate(start), strict=True):
        torch.testing.assert_close(integral, exact, rtol=tolerance, atol=tolerance)
    assert exact_reference(model, Objective(1, 0.0), 400 * data) is None


def test_members_and_rows_take_turns_so_that_memory_does_not_grow_with_them():
    """A rule of 31 by 80 nodes keeps 2,480 numbers of a row, and 2 at each of 80; the model 10 at each of 31, and 3."""
    model, data = problem(5, 1)
    found = exact_reference(model, Objective(2, 0.5), data / 4)
    assert found is not None and found.numbers == 31 * 80 + 2 * 80 + 31 * 10 + 3
    start = {name: torch.stack([p, 0.9 * p]) for name, p in own_parameters(found.loss).items()}
    for held in (1, 2 * found.numbers, 30 * found.numbers):
        turned = replace(found, held=held)
        torch.testing.assert_close(turned.evaluate(start), found.evaluate(start))
        torch.testing.assert_close(turned.hessians(start), found.hessians(start))


def test_as_many_rows_are_evaluated_at_once_as_are_held():
    """A Hessian of p parameters counts as p // 2 gradients."""
    model, data = problem(5, 1)
    found = exact_reference(model, Objective(2, 0.5), data / 4)
    assert found is not None
    seen = []

    def counted(model, x, noise, objective):
        seen.append(len(x))
        return found.loss.estimator(model, x, noise, objective)

    start = {name: p.unsqueeze(0) for name, p in own_parameters(found.loss).items()}
    size = sum(p.numel() for p in start.values())
    turned = replace(found, loss=Loss(model, counted, found.loss.objective), held=(size // 2) * 2 * found.numbers)
    turned.evaluate(start)
    assert seen == [5]
    seen.clear()
    turned.hessians(start)
    assert set(seen) == {2, 1} and size // 2 > 1
    seen.clear()
    replace(turned, held=3 * found.numbers).evaluate(start)
    assert seen == [3, 2]


def test_an_exact_gradient_that_takes_too_long_is_left_out_and_said_so(monkeypatch):
    """Five rows keep 2,953 numbers each."""
    model, data = problem(5, 1)
    kept = {}
    for most in (14_765, 14_764):
        monkeypatch.setattr(certification, "AFFORDED", most)
        said = kept.setdefault(most, [])
        settings = {"steps": 100, "members": 8, "replicates": 800, "batch_size": 2}
        verdicts = run_gates(model, pathwise, Objective(2, 0.5), data / 4, **settings, progress=said.append)
        assert ("descent ledger" in by_gate(verdicts)) == (most == 14_765)
    reason = "one keeps 14,765 numbers, at most 14,764 are afforded; use fewer rows"
    assert Stage("exact gradients", reason) in kept[14_764]
    assert not any(stage.title == "exact gradients" for stage in kept[14_765])


def test_what_a_reference_costs_is_known_from_a_few_rows():
    """Of 3,000 rows 34 are looked at by each rule, and four by what it keeps; all are only where that is afforded."""
    model, data = problem(3000, 1)
    rows, posterior = [], model.posterior

    def counted(x):
        rows.append(len(x))
        return posterior(x)

    model.posterior = counted
    found = exact_reference(model, Objective(2, 0.5), data / 4)
    assert found is not None and found.size > certification.AFFORDED
    assert 0 < sum(rows) <= 5 * (34 + 4)


def test_errors_of_a_reference_are_those_of_its_members_one_by_one():
    """Gradients (2, -1) and (0, 4) for (4, -1) and (1, 4) are 2 / 4 and 1 / 4 off, these 2 / 2 and 1 / 4."""
    model, data = problem(5, 1)
    found = exact_reference(model, Objective(2, 0.5), data / 4)
    assert found is not None and found.finer is not None
    start = {name: torch.stack([p, 20 * p, 0.5 * p]) for name, p in own_parameters(found.loss).items()}
    each = [found.error_at({name: p[i : i + 1] for name, p in start.items()}) for i in range(3)]
    assert found.error_at(start) == pytest.approx(max(each), rel=1e-3, abs=0) and max(each) > 1.5 * min(each) > 0

    def given(*rows):
        return lambda self, stacked: (torch.zeros(2), torch.tensor(rows, dtype=torch.float64))

    class Mine(Reference):
        evaluate = given([2.0, -1.0], [0.0, 4.0])

    class Finer(Reference):
        evaluate = given([4.0, -1.0], [1.0, 4.0])

    about = found.loss, data, "quadrature", 1
    assert Mine(*about, finer=Finer(*about)).error_at(start) == 0.5
    assert Finer(*about, finer=Mine(*about)).error_at(start) == 1.0
    assert Mine(*about).error_at(start) == 0.0


def test_gradients_that_are_not_finite_at_every_row_are_left_out_and_said_so(monkeypatch):
    model, data = problem(5, 1)
    settings = {"steps": 100, "members": 8, "replicates": 800, "batch_size": 2}
    for finite in (True, False):
        said = []
        monkeypatch.setattr(Reference, "is_finite", lambda self, stacked, finite=finite: finite)
        verdicts = run_gates(model, pathwise, Objective(2, 0.5), data / 4, **settings, progress=said.append)
        assert ("descent ledger" in by_gate(verdicts)) == finite
        assert any("not finite at every row" in stage.reason for stage in said) == (not finite)
    monkeypatch.undo()
    found = exact_reference(model, Objective(2, 0.5), data / 4)
    assert found is not None
    start = {name: p.unsqueeze(0) for name, p in own_parameters(found.loss).items()}
    assert found.is_finite(start) and not replace(
        found, data=data * torch.tensor([1, 1, 1, 1, 1e300])[:, None]
    ).is_finite(start)


def test_an_integral_that_fails_at_one_row_or_far_from_the_start_is_no_reference():
    """Rows that no rule knows are looked for far out; where a run ends the weights may be wider than at its start."""
    model, data = problem(40, 1)
    data = data / 4
    found = exact_reference(model, Objective(2, 0.5), data)
    assert found is not None
    start = {name: p.unsqueeze(0) for name, p in own_parameters(found.loss).items()}
    assert found.error_at(start) < 1e-6 < 1e-3 < found.error_at({n: torch.cat([p, 30 * p]) for n, p in start.items()})
    data[37] *= 400
    assert exact_reference(model, Objective(2, 0.5), data) is None


def test_a_decoder_with_kinks_has_no_reference(generator):
    """A rule of 41 nodes held against itself has no error, with kinks or without: it is held against another kind."""
    data = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    for activation, known in ((nn.Tanh(), True), (nn.ReLU(), False)):
        torch.manual_seed(0)
        decoder = nn.Sequential(nn.Linear(1, 16), activation, nn.Linear(16, 6))
        model = from_encoder_decoder(nn.Linear(6, 2), decoder, 1, likelihood="gaussian").double()
        assert (exact_reference(model, Objective(), data) is not None) == known


def test_gates_allow_for_the_error_of_an_integral_and_do_without_one_that_is_too_large(monkeypatch):
    model, data = problem(5, 1)
    settings = {"steps": 100, "members": 8, "replicates": 800, "batch_size": 2}
    for error, kept in ((1e-3, True), (1.1e-3, False)):
        said = []
        monkeypatch.setattr(Reference, "error_at", lambda self, stacked, error=error: error)
        verdicts = by_gate(run_gates(model, pathwise, Objective(2, 0.5), data / 4, **settings, progress=said.append))
        assert ("descent ledger" in verdicts) == kept and verdicts["gradient mean"].outcome != "fail"
        assert any("0.001 of a gradient off where the run went" in s.reason for s in said) == (not kept)


def test_a_wider_net_takes_more_for_the_same_integral(generator):
    """Each of the nodes keeps numbers of every hidden unit: what a gradient takes in memory and time."""
    data, found = torch.randn(12, 6, generator=generator, dtype=torch.float64), {}
    for width in (8, 80):
        model = deep_gaussian_vae((6,), (width,), 2, generator=generator, dtype=torch.float64)
        reference = exact_reference(model, Objective(), data)
        assert reference is not None and reference.kind == "quadrature"
        found[width] = reference.numbers / 31**2
    assert found[80] - found[8] >= 72


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_top_curvatures_are_those_of_the_hessians(alpha):
    """The largest |eigenvalue|; at alpha = 0 of a quadrature, whose Hessian is never formed."""
    model, data = problem(6, 1)
    reference = exact_reference(model, Objective(2, alpha), data / 4)
    assert reference is not None
    start = {name: torch.stack([p, 0.5 * p]) for name, p in own_parameters(reference.loss).items()}
    expected = torch.linalg.eigvalsh(reference.hessians(start)).abs().amax(-1)
    torch.testing.assert_close(reference.top_curvatures(start), expected, rtol=1e-3, atol=0)


def test_three_latents_have_no_reference_and_say_so(generator):
    model = deep_gaussian_vae((6,), (4,), 3, generator=generator, dtype=torch.float64)
    data, said = linear_gaussian(32, generator=generator, dtype=torch.float64), []
    assert exact_reference(model, Objective(), data) is None
    verdicts = run_gates(model, analytic_kl, Objective(), data, batch_size=4, **QUICK, progress=said.append)
    assert not failed(verdicts), failed(verdicts)
    assert "trusted" in by_gate(verdicts)["gradient mean"].claim
    assert Stage("ledgers and envelopes", "they need an exact gradient, and there is none") in said
    assert {stage.title for stage in said if not stage.left_out} >= {"variance against B and K"}
    assert {"replay", "randomness", "paired ledger", "gradient mean, paired"} <= by_gate(verdicts).keys()


def test_the_levels_of_a_run_add_up():
    model, data = problem(64, 2)
    verdicts = run_gates(model, analytic_kl, Objective(), data, **QUICK)
    assert not failed(verdicts), failed(verdicts)
    assert len(by_gate(verdicts)) == len(verdicts) >= 15
    assert sum(v.false_alarm for v in verdicts) <= FALSE_ALARM <= 1e-3


def test_a_diverged_run_fails_with_step_and_value():
    def trainer(*args, **options):
        return train(*args[:5], lambda n: 1e4 * args[5](n), *args[6:], **options)

    model, data = problem(64, 2)
    found = by_gate(run_gates(model, analytic_kl, Objective(), data, trainer=trainer, **QUICK))
    verdict = found["divergence"]
    assert not verdict.passed and 1 <= verdict.evidence["step"] <= 100 and verdict.evidence["value"] in {"nan", "inf"}
    assert not found["optimizer step"].passed
    assert all(not math.isnan(v.statistic) for v in found.values())
    assert found["gradient mean"].passed, "the gradient itself is right"


def test_a_run_that_diverges_in_its_first_step_is_not_said_to_hide_its_noise():
    def trainer(*args, **options):
        return train(*args[:5], lambda n: math.inf if args[5](1) else 0.0, *args[6:], **options)

    (model, data), said = problem(64, 2), []
    found = run_gates(model, analytic_kl, Objective(), data, trainer=trainer, **QUICK, progress=said.append)
    assert not by_gate(found)["divergence"].passed
    reasons = {stage.title: stage.reason for stage in said}
    assert reasons["replay and randomness"] == "no step before the run diverged was replayed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": 1}, "members must be at least 2, one seed has no standard error"),
        ({"steps": 99}, "steps must be at least 100"),
        ({"replicates": 801}, "a multiple of 8, got 801"),
        ({"replicates": 804}, "a multiple of 8, got 804"),
        ({"schedule": constant(1.0)}, r"need L C <= 1, but L = .* at the start and C = 1 give L C = .*; use C below"),
        ({"optimizer": "sdg"}, "sdg"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(change, message):
    model, data = problem(32, 2)
    with pytest.raises((ValueError, KeyError), match=message):
        run_gates(model, analytic_kl, Objective(), data, **(QUICK | change))


def test_lags_are_sums_over_pairs(generator):
    noise = torch.randn(9, 2, 3, generator=generator, dtype=torch.float64)
    found = lag_scores(noise, 4)
    for lag in range(1, 5):
        before = noise[:-lag] / noise[:-lag].norm(dim=-1, keepdim=True)
        terms = (noise[lag:] * before).sum(-1).flatten()
        torch.testing.assert_close(found[lag - 1], z_scores(terms))


def test_many_parameters_are_tested_by_projections(generator):
    """p > R / 20: 100 parameters and 800 samples; a shift in all of them by 0.35 standard errors is found."""
    samples = torch.randn(800, 100, generator=generator, dtype=torch.float64)
    assert mean_p_value(samples, torch.zeros(100, dtype=torch.float64), generator) > 1e-4
    assert mean_p_value(samples, samples[0] * 0 + 0.3, generator) < 1e-8
    assert mean_p_value(samples * math.inf, samples[0], generator) == 0


def test_a_mismatch_is_counted_in_rounding():
    """A step of length 1 may be off by 1e-6 and 16 units in the last place; 1e-5 is ten times too much."""
    start, aim = torch.zeros(3, 2, 2, dtype=torch.float64), torch.ones(3, 2, 2, dtype=torch.float64)
    off = aim.clone()
    off[1, 0, 1] *= 1 + 1e-5
    assert mismatch(start, aim, aim, {"w": 2}).tolist() == [0, 0, 0]
    assert mismatch(start, aim, off, {"w": 1, "v": 1}).tolist() == pytest.approx([0, 10, 0], rel=1e-6)
    assert mismatch(start, aim, aim * math.nan, {"w": 2}).isnan().all()
    assert flat({"w": aim[0]}).shape == (2, 2)


def test_a_float32_model_passes(generator):
    model, data = linear_vae(generator=generator), linear_gaussian(64, generator=generator) / 3
    verdicts = run_gates(model, pathwise, Objective(), data, optimizer="adam", **QUICK)
    assert not failed(verdicts), failed(verdicts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": lambda parameters, lr: None}, "The optimizer must be made with step and param_groups"),
        (
            {"sampler": lambda size, batch_size, generator: 5},
            "The sampler '<lambda>' must make a function n -> .* got 5",
        ),
        (
            {"sampler": lambda size, batch_size, generator: lambda n: torch.zeros(n, 3)},
            r"must draw int64 of shape .* for n = 2, got torch.float32 of shape \(2, 3\)",
        ),
        ({"trainer": lambda *_, **__: None}, "The training loop '<lambda>' must yield checkpoints .* got None"),
        ({"trainer": lambda *_, **__: [1]}, "The training loop '<lambda>' must yield checkpoints .* got 1"),
        ({"replicates": 2**20 + 8}, r"replicates must be at most 1,048,576, got 1,048,584"),
        ({"budget": 1e-300}, "A resolution of 1e-300 would take inf gradients at each point"),
        ({"schedule": lambda n: 1e-320}, "the rounding of parameters hides how SGD moves; use a larger C"),
        ({"objective": Objective(beta=1e308)}, "The gradient of '.*' by estimator 'analytic_kl' is .* too large to be"),
        ({"objective": Objective(beta=1e200), "optimizer": "adam"}, "at the start, too large to be judged; mend the"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_in_one_sentence(settings, message):
    model, data = problem(16, 2)
    asked = {"objective": Objective(), "steps": 100, "members": 2, "replicates": 800} | settings
    with pytest.raises(ValueError, match=message) as caught:
        run_gates(model, analytic_kl, asked.pop("objective"), data, **asked)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_loop_of_checkpoints_is_handed_through():
    """The control: what `train` yields, and a generator of it, are taken."""
    model, data = problem(16, 2)

    def own(*arguments, **options):
        yield from train(*arguments, **options)

    verdicts = run_gates(model, analytic_kl, Objective(), data, trainer=own, steps=100, members=2, replicates=800)
    assert {v.gate: v.outcome for v in verdicts}["replay"] == "pass"


def test_of_many_parameters_the_largest_curvature_is_iterated():
    """1,092 parameters at three points of two members: 1.5 times the largest eigenvalue, and no Hessian is kept."""
    data = linear_gaussian(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    models = [linear_vae(6, 84, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2)]
    reference = exact_reference(models[0], Objective(), data)
    assert reference is not None
    own = [own_parameters(Loss(model, analytic_kl, Objective())) for model in models]
    start = {name: torch.stack([one[name] for one in own]) for name in own[0]}
    before, every = flat(start), torch.arange(2)
    path = Path(
        every + 1, torch.ones(2, dtype=torch.float64), torch.stack([before, 1.1 * before]), before, before, before,
        before, 1.2 * before, (every, before), {},
    )  # fmt: skip
    assert before.shape[1] > bounds.DENSE
    found = bounds.curvature(path, reference, start)
    formed = max(
        float(torch.linalg.eigvalsh(reference.hessians({n: c * p for n, p in start.items()}))[:, -1].max())
        for c in (1.0, 1.1, 1.2)
    )
    assert found.top.shape == (2, 1) and found.hessians.shape[1] == 0
    assert float(found.top[0, 0]) == pytest.approx(bounds.SAFETY * formed, rel=1e-3)
