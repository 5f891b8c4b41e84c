"""The linear VAE's closed forms against autograd, quadrature and brute-force minimisation."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.func import grad, vmap

from vaebench.theory.problems import linear


def close(left, right, tolerance=1e-12):
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(left, right, strict=True))


def by_distributions(params, x, noise, s, beta):
    """The same log weights, term by term, through torch.distributions."""
    q = Normal(x @ params.V.mT, (params.eta / 2).exp())
    z = q.loc + q.scale * noise
    prior = Normal(torch.zeros_like(z), 1.0).log_prob(z).sum(-1)
    likelihood = Normal(z @ params.W.mT, math.sqrt(s)).log_prob(x).sum(-1)
    return likelihood + beta * (prior - q.log_prob(z).sum(-1))


def three_point(q):
    """Gauss-Hermite with three points per dimension: exact for polynomials of degree five."""
    node = torch.tensor([-math.sqrt(3), 0.0, math.sqrt(3)], dtype=torch.float64)
    weight = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    nodes = torch.cartesian_prod(*[node] * q)
    return nodes, torch.cartesian_prod(*[weight] * q).prod(-1)


def test_log_weights_are_those_of_the_distributions(bed, generator):
    noise = torch.randn(256, 2, generator=generator, dtype=torch.float64)
    mine = linear.log_weights(bed.params, bed.data, noise, bed.noise_variance, bed.beta)
    assert torch.allclose(mine, by_distributions(bed.params, bed.data, noise, bed.noise_variance, bed.beta))


def test_objective_is_minus_the_mean_log_weight(bed):
    nodes, weights = three_point(2)
    log_w = linear.log_weights(bed.params, bed.data, nodes[:, None], bed.noise_variance, bed.beta)
    by_quadrature = -(weights @ log_w).mean()
    value = linear.objective(bed.params, bed.scatter, bed.noise_variance, bed.beta)
    assert value == pytest.approx(float(by_quadrature), rel=1e-13)


def test_divergence_part_is_that_of_torch(bed):
    x, q = bed.data, Normal(bed.data @ bed.params.V.mT, (bed.params.eta / 2).exp())
    difference = linear.objective(bed.params, bed.scatter, 0.5, 2.0) - linear.objective(
        bed.params, bed.scatter, 0.5, 1.0
    )
    kl = kl_divergence(q, Normal(torch.zeros(2).to(x), 1.0)).sum(-1).mean()
    assert difference == pytest.approx(float(kl), rel=1e-12)


def test_gradient_is_autograd(bed):
    exact = grad(linear.objective)(bed.params, bed.scatter, bed.noise_variance, bed.beta)
    mine = linear.gradient(bed.params, bed.scatter, bed.noise_variance, bed.beta)
    assert close(mine, exact)
    for block in range(3):  # negative control: a flipped block is seen
        wrong = mine._replace(**{mine._fields[block]: -mine[block]})
        assert not close(wrong, exact)


def test_flatten_and_unflatten_are_inverse_with_leading_axes(bed):
    stacked = linear.LinearParameters(*(torch.stack([b, 2 * b]) for b in bed.params))
    vector = linear.flatten(stacked)
    assert vector.shape == (2, 26)
    assert close(linear.unflatten(vector, 6, 2), stacked)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_optimum_is_stationary_and_attains_its_value(bed, beta):
    params, value = linear.optimum(bed.scatter, 2, bed.noise_variance, beta)
    assert linear.flatten(linear.gradient(params, bed.scatter, bed.noise_variance, beta)).abs().max() < 1e-12
    assert linear.objective(params, bed.scatter, bed.noise_variance, beta) == pytest.approx(float(value), rel=1e-13)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_no_restart_of_lbfgs_ends_below_the_optimum(bed, beta, generator):
    _, best = linear.optimum(bed.scatter, 2, bed.noise_variance, beta)
    ends = []
    for _ in range(4):
        start = torch.randn(26, generator=generator, dtype=torch.float64, requires_grad=False) * 0.3
        vector = start.requires_grad_()
        solver = torch.optim.LBFGS(
            [vector],
            max_iter=400,
            line_search_fn="strong_wolfe",
            tolerance_grad=1e-10,
            tolerance_change=1e-15,
        )

        def closure(vector=vector, solver=solver):
            solver.zero_grad()
            f = linear.objective(linear.unflatten(vector, 6, 2), bed.scatter, bed.noise_variance, beta)
            f.backward()
            return f

        solver.step(closure)
        ends.append(float(closure().detach() - best))
    assert min(ends) > -1e-12
    assert min(ends) < 1e-9


def test_optimal_elbo_is_the_ppca_likelihood(bed):
    params, value = linear.optimum(bed.scatter, 2, bed.noise_variance, 1.0)
    assert -linear.log_evidence(params, bed.data, bed.noise_variance).mean() == pytest.approx(float(value), rel=1e-12)


def test_log_evidence_is_the_gaussian_marginal(bed):
    cov = bed.params.W @ bed.params.W.mT + bed.noise_variance * torch.eye(6, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(6, dtype=torch.float64), cov).log_prob(bed.data)
    assert torch.allclose(linear.log_evidence(bed.params, bed.data, bed.noise_variance), exact)
    assert linear.log_evidence(bed.params, bed.data[0], bed.noise_variance) == pytest.approx(float(exact[0]))


def test_hessian_is_the_derivative_of_the_gradient(bed):
    h = linear.hessian(bed.params, bed.scatter, bed.noise_variance, bed.beta)
    point, step = linear.flatten(bed.params), 1e-6

    def flat_gradient(vector):
        params = linear.unflatten(vector, 6, 2)
        return linear.flatten(linear.gradient(params, bed.scatter, bed.noise_variance, bed.beta))

    columns = [
        (flat_gradient(point + step * e) - flat_gradient(point - step * e)) / (2 * step)
        for e in torch.eye(26, dtype=torch.float64)
    ]
    assert torch.allclose(h, torch.stack(columns), atol=1e-7)


def on_ball(matrix, radius):
    return matrix * (radius / torch.linalg.matrix_norm(matrix, 2))


@pytest.mark.parametrize(("r_w", "r_v", "d"), [(0.5, 0.5, 1.0), (1.5, 1.0, 2.0), (3.0, 0.2, 0.1)])
def test_smoothness_bounds_the_curvature_and_is_attained(bed, r_w, r_v, d, generator):
    lam, vectors = torch.linalg.eigh(bed.scatter)
    bound = linear.smoothness_on_ball(r_w, r_v, d, float(lam[-1]), bed.noise_variance, bed.beta)
    for _ in range(5):  # anywhere on the ball's boundary: below
        w = on_ball(torch.randn(6, 2, generator=generator, dtype=torch.float64), r_w)
        v = on_ball(torch.randn(2, 6, generator=generator, dtype=torch.float64), r_v)
        eta = torch.full((2,), math.log(d), dtype=torch.float64)
        h = linear.hessian(linear.LinearParameters(w, v, eta), bed.scatter, bed.noise_variance, bed.beta)
        assert torch.linalg.eigvalsh(h)[-1] <= bound * (1 + 1e-12)
    top = vectors[:, -1:]  # aligned with the first principal direction, V against W: attained
    w = torch.cat([r_w * top, 0 * top], 1)
    v = torch.cat([-r_v * top, 0 * top], 1).mT
    h = linear.hessian(
        linear.LinearParameters(w, v, torch.full((2,), math.log(d), dtype=torch.float64)),
        bed.scatter,
        bed.noise_variance,
        bed.beta,
    )
    attained = float(torch.linalg.eigvalsh(h)[-1])
    assert attained == pytest.approx(bound, rel=1e-9)


def test_a_fleet_is_its_members(bed):
    members = [linear.LinearParameters(*(b * scale for b in bed.params)) for scale in (0.5, 1.0, 1.5)]
    fleet = linear.LinearParameters(*(torch.stack(blocks) for blocks in zip(*members, strict=True)))
    for function in (linear.objective, linear.gradient, linear.hessian):
        together = vmap(lambda p, f=function: f(p, bed.scatter, bed.noise_variance, bed.beta))(fleet)
        for s, member in enumerate(members):
            alone = function(member, bed.scatter, bed.noise_variance, bed.beta)
            for a, b in zip(
                torch.utils._pytree.tree_leaves(together), torch.utils._pytree.tree_leaves(alone), strict=True
            ):
                assert torch.allclose(a[s], b)
