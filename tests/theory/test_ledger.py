"""The trajectory ledger on torch's own Adam."""

import math

import pytest
import torch

from vaebench.theory import ledger, series
from vaebench.theory.problems import linear, linear_noise


def train(bed, betas, scale, seeds, steps, start, generator, shrink=1.0):
    """torch.optim.Adam on stacked members from the bed's point, entered step by step."""
    fleet = linear.flatten(bed.params).expand(seeds, -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([fleet], lr=scale, betas=betas)
    keys = bed.noise_variance, bed.beta

    def value(vector):
        return torch.func.vmap(lambda p: linear.objective(linear.unflatten(p, 6, 2), bed.scatter, *keys))(vector)

    def one_gradient(vector, x, noise):
        params = linear.unflatten(vector, 6, 2)
        draws = linear.flatten(linear_noise.sample_gradient(params, x, noise, *keys)).mean(0)
        return draws, linear.flatten(linear.gradient(params, bed.scatter, *keys))

    def top(vector):
        return torch.linalg.eigvalsh(linear.hessian(linear.unflatten(vector, 6, 2), bed.scatter, *keys))[-1]

    account, before = ledger.AdamLedger.begin(fleet.detach()), None
    errors, curvature = [], torch.func.vmap(top)(fleet.detach()).max()
    for k, step in enumerate(series.inverse_sqrt_steps(scale, steps).tolist(), 1):
        x = bed.data[torch.randint(len(bed.data), (seeds, 8), generator=generator)]
        noise = torch.randn(seeds, 8, 2, generator=generator, dtype=torch.float64)
        point = fleet.detach().clone()
        estimate, exact = torch.func.vmap(one_gradient)(point, x, noise)
        fleet.grad, optimizer.param_groups[0]["lr"] = estimate, step
        optimizer.step()
        account = ledger.record_step(account, estimate, shrink * exact, step, 1.2 * curvature, betas, start=start)
        errors.append((fleet.detach() - point - account.move).abs().max())
        if k == start:
            before = value(fleet.detach() + ledger.offset(account, betas[0]))
        if k % 20 == 0:
            curvature = torch.maximum(curvature, torch.func.vmap(top)(fleet.detach()).max())
    after = value(fleet.detach() + ledger.offset(account, betas[0]))
    return ledger.sides(account, before, after), max(errors)


@pytest.mark.parametrize(("betas", "scale"), [((0.9, 0.999), 0.02), ((0.0, 0.999), 0.02), ((0.8, 0.9), 0.05)])
def test_the_ledger_follows_torch_and_balances(small_bed, betas, scale):
    """Mean margin of 16 seeds not 5 standard errors below zero; its own moves are torch's."""
    g = torch.Generator().manual_seed(9)
    sides, error = train(small_bed, betas, scale, 16, 300, 50, g)
    assert error < 1e-12
    margin = sides.margin
    assert margin.mean() > -5 * margin.std(ddof=1) / math.sqrt(16)
    assert 1 < sides.right.mean() / sides.left.mean() < 30


def test_more_gradient_than_progress_is_noticed(small_bed):
    """Negative control: had the true gradient been twice as large, the books would not balance."""
    g = torch.Generator().manual_seed(9)
    sides, _ = train(small_bed, (0.9, 0.999), 0.003, 16, 300, 50, g, shrink=2.0)
    margin = sides.margin
    assert margin.mean() < -6 * margin.std(ddof=1) / math.sqrt(16)


def test_the_books_are_kept_as_defined(generator):
    """Against sums over stored iterates of torch's Adam; drift in its other form, y_k - y_{k-1} + Gamma_{k-1} g_k."""
    b1, b2, n, start, smoothness = 0.7, 0.9, 12, 3, 2.5
    estimates = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    gradients = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    steps = series.inverse_sqrt_steps(0.1, n)
    x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([x], betas=(b1, b2))
    path, scales, second, account = [x.detach().clone()] * 2, [], 0, ledger.AdamLedger.begin(x.detach())
    for k in range(1, n + 1):
        x.grad, optimizer.param_groups[0]["lr"] = estimates[k - 1].clone(), steps[k - 1]
        optimizer.step()
        path.append(x.detach().clone())
        second = b2 * second + (1 - b2) * estimates[k - 1] ** 2
        scales.append(steps[k - 1] / ((1 - b1**k) * ((second / (1 - b2**k)).sqrt() + 1e-8)))
        args = estimates[k - 1], gradients[k - 1], steps[k - 1], smoothness
        account = ledger.record_step(account, *args, (b1, b2), start=start)
    c, moves = b1 / (1 - b1), torch.stack(path).diff(dim=0)  # moves[k] = x_k - x_{k-1}
    virtual = torch.stack(path[1:]) + c * moves  # y_0 .. y_n
    left = drift = curvature = 0.0
    for k in range(start + 1, n + 1):
        change, g = virtual[k] - virtual[k - 1], gradients[k - 1]
        left += g @ (scales[k - 2] * g)
        drift += g @ (change + scales[k - 2] * estimates[k - 1])
        curvature += smoothness * (c * moves[k - 1].norm() * change.norm() + change.norm() ** 2 / 2)
    assert torch.allclose(path[-1] + ledger.offset(account, b1), virtual[-1])
    sides = ledger.sides(account, torch.tensor(3.0), torch.tensor(1.0))
    assert float(sides.left) == pytest.approx(float(left))
    assert float(sides.right) == pytest.approx(float(3 - 1 + drift + curvature))
