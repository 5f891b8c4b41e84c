"""The trajectory ledger on torch's own Adam."""

import math

import pytest
import torch

from vaebench.theory import ledger, linear, linear_noise, series


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
        account = ledger.enter(account, estimate, shrink * exact, step, 1.2 * curvature, betas, start=start)
        errors.append((fleet.detach() - point - account.move).abs().max())
        if k == start:
            before = value(fleet.detach() + ledger.offset(account, betas[0]))
        if k % 20 == 0:
            curvature = torch.maximum(curvature, torch.func.vmap(top)(fleet.detach()).max())
    after = value(fleet.detach() + ledger.offset(account, betas[0]))
    return ledger.settle(account, before, after), max(errors)


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
