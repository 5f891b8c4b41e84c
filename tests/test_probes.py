"""Probes against closed forms of the linear VAE.

A statistical assertion is |z| < 4.5 with a fixed seed and sample size: each would fail for 7 seeds in a million.
"""

import dataclasses
import itertools

import pytest
import torch
from torch.func import grad, vmap

from vaebench.data import linear_gaussian
from vaebench.data.sampling import epochwise
from vaebench.gradients.estimators import exact, leave_one_out, pathwise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.gradients.trial import tried
from vaebench.measures import moments, probes
from vaebench.measures.jackknife import jackknife
from vaebench.measures.likelihood import bound
from vaebench.models import GaussianRegression, conv_vae, deep_gaussian_vae, linear_vae, mean_field

LIMIT = 4.5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_case(n: int = 64, estimator=pathwise):
    data = linear_gaussian(n, generator=seeded(1), dtype=torch.float64)
    model = linear_vae(generator=seeded(2), dtype=torch.float64)
    return Loss(model, estimator, Objective()), data


def per_example_gradients(loss, data):
    """Exact gradients of each example's loss, (N, P)."""
    one = grad(moments.loss_function(Loss(loss.model, exact, loss.objective)))
    rows = vmap(lambda x: one(moments.own_parameters(loss), x[None], x.new_zeros(1, 1, 2)))(data)
    return torch.cat([rows[name].flatten(1) for name in rows], 1)


def data_variance(loss, data) -> float:
    return float(per_example_gradients(loss, data).var(0, correction=0).sum())


def latent_variance(loss, data) -> float:
    """Mean over examples of the trace variance in z: 3 Gauss-Hermite nodes per axis are exact for quartics."""
    nodes = torch.tensor([-(3**0.5), 0, 3**0.5], dtype=torch.float64)
    masses = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    one, mean, square = grad(moments.loss_function(loss)), 0, 0
    for i, j in itertools.product(range(3), repeat=2):
        noise = torch.stack([nodes[i], nodes[j]]).view(1, 1, 2)
        rows = vmap(lambda x, e=noise: one(moments.own_parameters(loss), x[None], e))(data)
        flat = torch.cat([rows[name].flatten(1) for name in rows], 1)
        mean = mean + masses[i] * masses[j] * flat
        square = square + masses[i] * masses[j] * flat.square().sum(1)
    return float((square - mean.square().sum(1)).mean())


def agrees(estimate: probes.Estimate, truth: float) -> bool:
    return abs(estimate.value - truth) < LIMIT * estimate.error and estimate.error < 0.2 * abs(truth)


def mean_and_error(values: torch.Tensor) -> probes.Estimate:
    return probes.Estimate(float(values.mean()), float(values.std() / len(values) ** 0.5))


@pytest.mark.parametrize("group", ["whole", "phi", "theta"])
def test_grad_sq_is_unbiased_for_the_exact_value(group):
    loss, data = linear_case()
    names = moments.parameter_groups(loss, data)[group]
    gathered = moments.gradient_moments(loss, moments.fresh(loss, data, 8, seeded(3)), 2048)
    truth = probes.squared_norm(probes.exact_gradient(loss, data), names)
    assert agrees(probes.grad_sq(gathered, names), truth)


def test_grad_sq_is_the_mean_over_pairs_and_its_error_the_jackknife():
    loss, data = linear_case()
    draws = moments.fresh(loss, data, 4, seeded(4))
    gathered = moments.gradient_moments(loss, draws, 12, groups=6)
    (chunk,) = moments.gradients(loss, moments.fresh(loss, data, 4, seeded(4)), 12)
    rows = torch.cat([chunk[name].flatten(1) for name in chunk], 1)

    def pairs(kept):
        gram = rows[kept] @ rows[kept].mT
        return float((gram.sum() - gram.trace()) / (len(kept) * (len(kept) - 1)))

    left = torch.tensor([pairs([r for r in range(12) if r // 2 != j]) for j in range(6)], dtype=torch.float64)
    estimate = probes.grad_sq(gathered)
    assert estimate.value == pytest.approx(pairs(list(range(12))), rel=1e-12)
    assert estimate.error == pytest.approx(float((5 * left.var(correction=0)).sqrt()), rel=1e-12)
    variance = probes.gradient_variance(gathered).value
    assert variance == pytest.approx(float(rows.var(0).sum()), rel=1e-12)
    mean = torch.cat([gathered.mean[name].flatten() for name in gathered.mean])
    torch.testing.assert_close(mean, rows.mean(0))


def test_the_jackknife_error_is_that_of_repetition():
    """Over 400 repetitions the variance of U has a relative error near 10 %, so the ratio is within 40 %."""
    loss, data = linear_case()
    draws = moments.fresh(loss, data, 8, seeded(5))
    estimates = [probes.grad_sq(moments.gradient_moments(loss, draws, 32)) for _ in range(400)]
    values, errors = (torch.tensor(column, dtype=torch.float64) for column in zip(*estimates, strict=True))
    assert 0.6 < errors.square().mean() / values.var() < 1.4


@pytest.mark.parametrize("batch_size", [4, 16])
def test_variance_and_its_two_parts_agree_with_the_closed_form(batch_size):
    loss, data = linear_case()
    from_data, from_noise = data_variance(loss, data) / batch_size, latent_variance(loss, data) / batch_size
    gathered = moments.gradient_moments(loss, moments.fresh(loss, data, batch_size, seeded(6)), 2048)
    assert agrees(probes.gradient_variance(gathered), from_data + from_noise)
    draws = moments.nested(loss, data, batch_size, 3, seeded(7))
    split = probes.gradient_split(moments.gradient_moments(loss, draws, 3 * 1024, groups=1024))
    assert agrees(split.data, from_data)
    assert agrees(split.latent, from_noise)


def test_samples_lower_the_latent_part_and_not_the_data_part():
    loss, data = linear_case()
    loss.objective = Objective(samples=5)
    draws = moments.nested(loss, data, 8, 2, seeded(8))
    split = probes.gradient_split(moments.gradient_moments(loss, draws, 2048, groups=1024))
    assert agrees(split.data, data_variance(loss, data) / 8)
    assert agrees(split.latent, latent_variance(Loss(loss.model, pathwise, Objective()), data) / 40)


def test_replicates_of_one_minibatch_measure_that_minibatch():
    """And its squared gradient is sigma^2_data / B too large in the mean over minibatches: 3000 of them."""
    loss, data = linear_case()
    x, truth = data[:8], probes.squared_norm(probes.exact_gradient(loss, data))
    own = probes.squared_norm(probes.exact_gradient(loss, x))
    gathered = moments.gradient_moments(loss, moments.conditional(loss, x, seeded(9)), 2048)
    assert agrees(probes.grad_sq(gathered), own) and not agrees(probes.grad_sq(gathered), truth)
    rows = per_example_gradients(loss, data)[torch.randint(64, (3000, 8), generator=seeded(10))]
    assert agrees(mean_and_error(rows.mean(1).square().sum(1)), truth + data_variance(loss, data) / 8)


def test_disjoint_minibatches_of_one_epoch_are_biased_downwards():
    """By sigma^2_data / (N - 1), N = 12; 3000 epochs of 6 minibatches, without noise in z."""
    loss, data = linear_case(12, exact)
    draws = moments.replicates(loss, data, epochwise(12, 2, seeded(11)), 2, seeded(11))
    values, squares = [], []
    for _ in range(3000 // 40):
        (chunk,) = moments.gradients(loss, draws, 240)
        rows = torch.cat([chunk[name].flatten(1) for name in chunk], 1).unflatten(0, (40, 6))
        values.append((rows.sum(1).square().sum(1) - rows.square().sum((1, 2))) / 30)
        squares.append(rows.square().sum(2).mean(1))
    truth, spread = probes.squared_norm(probes.exact_gradient(loss, data)), data_variance(loss, data)
    pairs, norms = mean_and_error(torch.cat(values)), mean_and_error(torch.cat(squares))
    assert agrees(pairs, truth - spread / 11) and abs(pairs.value - truth) > 10 * pairs.error
    assert agrees(norms, truth + spread / 2 * (12 - 2) / 11)


def test_the_signal_to_noise_ratio_agrees_with_the_closed_form():
    loss, data = linear_case()
    gathered = moments.gradient_moments(loss, moments.fresh(loss, data, 8, seeded(12)), 2048)
    variance = (data_variance(loss, data) + latent_variance(loss, data)) / 8
    truth = (probes.squared_norm(probes.exact_gradient(loss, data)) / variance) ** 0.5
    assert agrees(probes.snr(gathered), truth)
    other = moments.gradient_moments(loss, moments.fresh(loss, data, 8, seeded(13)), 2048)
    assert agrees(probes.snr(gathered, other), truth)


def test_the_signal_to_noise_ratio_does_not_saturate():
    """At the origin the gradient is 0: U / variance has mean 0, where |mean|^2 / variance has 1 / R. 300 times."""
    loss, data = linear_case()
    origin = {name: torch.zeros_like(p) for name, p in moments.own_parameters(loss).items()}
    assert probes.squared_norm(probes.exact_gradient(loss, data, origin)) < 1e-20
    draws, ratios, naive = moments.fresh(loss, data, 8, seeded(14)), [], []
    for _ in range(300):
        gathered = moments.gradient_moments(loss, draws, 24, origin)
        variance = probes.gradient_variance(gathered).value
        ratios.append(24 * probes.grad_sq(gathered).value / variance)
        naive.append(24 * probes.squared_norm(gathered.mean) / variance)
    unbiased, saturated = (mean_and_error(torch.tensor(v)) for v in (ratios, naive))
    assert abs(unbiased.value) < LIMIT * unbiased.error and unbiased.error < 0.1
    assert abs(saturated.value - 1) < LIMIT * saturated.error


def test_signal_that_is_absent_gives_a_ratio_of_zero_with_an_error():
    """Two pairs of opposite gradients: sum 0, sum of squares 4 x 1, U = -4 / 12, V = 4 / 3, so r < 0, never 0 +- 0."""
    g = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    found = moments.gather([{"p": g}], 4)
    assert probes.grad_sq(found).value == pytest.approx(-1 / 3)
    assert probes.gradient_variance(found).value == pytest.approx(4 / 3)
    ratio = probes.snr(found)
    assert ratio.value == 0 and ratio.error == pytest.approx((2 / 12) ** 0.25)
    assert probes.snr(found, found).value == 0 and probes.snr(found, found).error > 0


def test_the_error_of_a_clear_ratio_is_that_of_the_delta_method():
    """Of 400 gradients with mean 3 and variance 1, r = 9: d sqrt(r) is e / 6 to 1 %."""
    g = 3 + torch.randn(400, 1, generator=seeded(4), dtype=torch.float64)
    found = moments.gather([{"p": g}], 400)

    def squared_snr(s):
        unbiased_square = (s.total - s.squares) / (s.number * (s.number - 1))
        return unbiased_square / ((s.squares - s.total / s.number) / (s.number - 1))

    ratio = jackknife(found, squared_snr)
    assert probes.snr(found).error == pytest.approx(ratio.error / (2 * ratio.value**0.5), rel=0.05)


def drawn(count: int, scales: tuple[float, ...], generator: torch.Generator) -> moments.Moments:
    spread = torch.tensor(scales, dtype=torch.float64)
    found = torch.randn(count, len(scales), generator=generator, dtype=torch.float64) * spread
    return moments.gather([{"p": found}], count)


def test_squared_covariance_is_unbiased():
    """tr(Cov^2) = 1 + 1/16 of scales 1 and 1/2, over 2,000 sets of 16 gradients; and from coarse groups of 96."""
    generator = seeded(5)
    found = torch.tensor([drawn(16, (1.0, 0.5), generator).squared_covariance() for _ in range(2000)])
    assert abs(float(found.mean()) - 17 / 16) < LIMIT * float(found.std()) / 2000**0.5 < 0.15
    coarse = torch.tensor([drawn(96, (1.0, 0.5), generator).squared_covariance() for _ in range(1000)])
    assert abs(float(coarse.mean()) - 17 / 16) < LIMIT * float(coarse.std()) / 1000**0.5 < 0.15
    assert drawn(96, (1.0,), generator).gram["p"].shape == (48, 48)


@pytest.mark.parametrize("scales", [(1.0,), (1.0,) * 12], ids=len)
def test_the_error_of_a_zero_gradient_is_that_of_its_null(scales):
    """Mean square of the error over Var U = 2 tr(Cov^2) / (R (R - 1)); the plain jackknife's is 2.1 of it."""
    generator, count = seeded(6), 24
    found = [probes.grad_sq(drawn(count, scales, generator)) for _ in range(1500)]
    truth = 2 * len(scales) / (count * (count - 1))
    assert torch.tensor([one.value for one in found]).var().item() == pytest.approx(truth, rel=0.2)
    ratio = torch.tensor([one.error**2 for one in found]).mean().item() / truth
    assert 0.9 < ratio < (2.4 if len(scales) == 1 else 1.5)


def test_gradients_of_many_replicates_equal_those_of_one_by_one(monkeypatch):
    loss, data = linear_case(estimator=leave_one_out)
    loss.objective = Objective(samples=3, alpha=0)
    x, noise = moments.fresh(loss, data, 4, seeded(16)).take(5)
    (chunk,) = moments.gradients(loss, moments.fresh(loss, data, 4, seeded(16)), 5)
    for r in range(5):
        loss.zero_grad()
        loss(x[r], noise[r]).backward()
        for name, parameter in loss.named_parameters():
            torch.testing.assert_close(chunk[name][r], parameter.grad)
    monkeypatch.setattr(moments, "CHUNK", 1)
    single = list(moments.gradients(loss, moments.conditional(loss, data, seeded(17)), 3))
    assert [len(chunk["model.W"]) for chunk in single] == [1, 1, 1]


def test_replicates_are_drawn_256_at_a_time_and_their_gradients_are_taken_together():
    """3 samples of 4 rows of 6 numbers are 72, and half of 2^20 are those of 7,281 replicates, 28 times 256."""
    loss, data = linear_case()
    loss.objective = Objective(samples=3)
    together = list(moments.gradients(loss, moments.fresh(loss, data, 4, seeded(19)), 7200))
    assert [len(chunk["model.W"]) for chunk in together] == [7168, 32]
    draws, model = moments.fresh(loss, data, 4, seeded(19)), moments.own_parameters(loss)
    apart = [vmap(grad(moments.loss_function(loss)), (None, 0, 0))(model, *draws.take(n)) for n in (*[256] * 28, 32)]
    for name in model:
        torch.testing.assert_close(*(torch.cat([part[name] for part in parts]) for parts in (together, apart)))


def test_large_nets_share_sixteen_groups(monkeypatch):
    loss, data = linear_case()
    monkeypatch.setattr(moments, "STORED", 100)
    gathered = moments.gradient_moments(loss, moments.fresh(loss, data, 8, seeded(18)), 2048)
    assert len(gathered.own["model.W"]) == 16
    truth = probes.squared_norm(probes.exact_gradient(loss, data))
    assert agrees(probes.grad_sq(gathered), truth)


def test_parameter_groups_are_found_by_autograd():
    x = torch.rand(2, 3, 32, 32, generator=seeded(19))
    groups = moments.parameter_groups(Loss(conv_vae(latents=2, generator=seeded(20)), pathwise, Objective()), x)
    assert all(name.startswith("model.encoder") for name in groups["phi"])
    assert all(name.startswith("model.decoder") for name in groups["theta"])
    assert set(groups["whole"]) == {*groups["phi"], *groups["theta"]}
    target = GaussianRegression(torch.eye(3), 1.0)
    mean = Loss(mean_field(target), pathwise, Objective())
    assert moments.parameter_groups(mean, torch.ones(1, 3))["theta"] == ()
    draws = moments.conditional(mean, torch.ones(1, 3), seeded(21))
    assert probes.grad_sq(moments.gradient_moments(mean, draws, 4), ()) == (0, 0)


def test_ess_counts_equal_weights():
    weights = torch.tensor([[1.0, 0.5, 0.25], [0.0, 0.5, 0.25], [0.0, 0.0, 0.5]])
    torch.testing.assert_close(probes.ess(weights), torch.tensor([1.0, 2.0, 8 / 3]))


@pytest.mark.parametrize("estimator", [pathwise, leave_one_out])
def test_the_bound_agrees_with_the_closed_form_whatever_the_estimator(estimator):
    loss, data = linear_case(estimator=estimator)
    loss.objective = Objective(samples=2, beta=0.5)
    truth = float(exact(loss.model, data, torch.zeros(2, 64, 2), loss.objective).mean().detach())
    assert agrees(bound(loss, data, 200, seeded(22), batch_size=48), truth)


def test_the_error_of_the_bound_is_that_of_repetition():
    """200 times: the variance of the bound has a relative error near 10 %, so the ratio is within 50 %."""
    loss, data = linear_case()
    generator = seeded(28)
    values, errors = zip(*(bound(loss, data, 6, generator) for _ in range(200)), strict=True)
    assert 0.5 < torch.tensor(errors).square().mean() / torch.tensor(values).var() < 1.5


def test_top_curvature_agrees_with_the_dense_hessian():
    model = deep_gaussian_vae((3,), (4,), 2, sharpness=5.0, generator=seeded(23), dtype=torch.float64)
    x, noise = torch.rand(6, 3, generator=seeded(24), dtype=torch.float64), torch.ones(2, 6, 2, dtype=torch.float64)
    linear, data = linear_case(estimator=exact)
    cases = [(Loss(model, pathwise, Objective(samples=2)), x, noise), (linear, data, torch.zeros(1, 64, 2))]
    for loss, batch, draws in cases:
        point, function = moments.own_parameters(loss), moments.loss_function(loss)
        sizes, names = [p.numel() for p in point.values()], list(point)

        def flat(vector, point=point, function=function, sizes=sizes, names=names, batch=batch, draws=draws):
            pieces = zip(names, vector.split(sizes), strict=True)
            return function({n: v.view_as(point[n]) for n, v in pieces}, batch, draws)

        hessian = torch.autograd.functional.hessian(flat, torch.cat([p.flatten() for p in point.values()]))
        truth = float(torch.linalg.eigvalsh(hessian).abs().max())
        here = probes.top_curvature(lambda p, f=function, b=batch, d=draws: f(p, b, d), point, seeded(25), 1e-10)
        assert here == pytest.approx(truth, rel=1e-9)


def test_top_curvature_of_one_parameter_and_of_a_concave_function():
    assert probes.top_curvature(lambda p: -3 * p["a"].square().sum(), {"a": torch.ones(1)}) == 6
    curvature = probes.top_curvature(lambda p: -(p["a"] ** 2 * torch.tensor([1.0, 4.0])).sum(), {"a": torch.ones(2)})
    assert curvature == pytest.approx(8, rel=1e-5)


def test_bad_input_is_refused():
    loss, data = linear_case()
    draws = moments.fresh(loss, data, 8, seeded(26))
    with pytest.raises(ValueError, match="multiple of groups"):
        moments.gradient_moments(loss, draws, 10, groups=4)
    with pytest.raises(ValueError, match="at least 3"):
        moments.gradient_moments(loss, draws, 2)
    with pytest.raises(ValueError, match="2 or more draws per minibatch"):
        probes.gradient_split(moments.gradient_moments(loss, draws, 8))
    with pytest.raises(ValueError, match="standard error"):
        bound(loss, data, 1, seeded(27))


def counted(estimator, calls):
    def count(model, x, noise, objective):
        calls.append(len(x))
        return estimator(model, x, noise, objective)

    return count


def test_what_was_tried_once_is_not_tried_again_and_measures_the_same():
    """A trial calls the estimator on few rows; 5 replicates of 8 rows, many at once, are one call."""
    (given, data), calls = linear_case(), []
    loss = Loss(given.model, counted(given.estimator, calls), given.objective)
    known = tried(loss, data)
    calls.clear()
    first = moments.gradient_moments(loss, moments.fresh(loss, known, 8, seeded(1)), 5)
    assert calls == [8]
    again = moments.gradient_moments(loss, moments.fresh(loss, data, 8, seeded(1)), 5)
    assert len(calls) > 4 and all(torch.equal(first.mean[name], again.mean[name]) for name in first.mean)
    assert bound(loss, known.rows(slice(20)), 2, seeded(2)) == bound(loss, data[:20], 2, seeded(2))


def test_what_was_tried_of_one_loss_is_tried_of_another():
    """Another estimator, another bound and another model each have their own trial; equal bounds are one."""
    loss, data = linear_case()
    known = tried(loss, data)

    def wrong(model, x, noise, objective):
        return pathwise(model, x, noise, objective).sum()

    assert known.of(Loss(loss.model, loss.estimator, dataclasses.replace(loss.objective)))
    assert not known.of(Loss(loss.model, loss.estimator, Objective(samples=7)))
    assert not known.of(Loss(linear_case()[0].model, loss.estimator, loss.objective))
    with pytest.raises(ValueError, match="one surrogate per example"):
        moments.fresh(Loss(loss.model, wrong, loss.objective), known, 8, seeded(1))
    other = Loss(loss.model, counted(loss.estimator, calls := []), loss.objective)
    moments.gradient_moments(other, moments.fresh(other, known, 8, seeded(1)), 5)
    assert len(calls) > 4
