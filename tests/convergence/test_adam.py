"""torch's Adam, default betas, gamma_n = C / sqrt(n), on the linear VAE: its books balance, and it decays.

16 seeds, 2000 steps, B = 8 of 64 examples. No a-priori bound is asserted: at these betas it exceeds the trivial
one. The ledger uses 1.2 times the largest curvature that every tenth point of the run showed.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.func import vmap

from tests.convergence.findings import not_negative
from tests.convergence.recording import record
from tests.convergence.test_sgd import START, problem
from vaebench.gates import Verdict
from vaebench.gradients.estimators import analytic_kl
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.measures.moments import fresh, gradients
from vaebench.models import linear_vae
from vaebench.theory import ledger, predictions
from vaebench.theory.series import Inequality
from vaebench.training.optimizers import adam
from vaebench.training.schedules import constant, inverse_sqrt

BETAS, SCALE, WARMUP = (0.9, 0.999), 0.03, 50
SEEDS, STEPS, BATCH = range(16), 2000, 8


class Books(NamedTuple):
    """Both sides of (T), |grad f(x_{k-1})|^2 (S, n), the largest error of the ledger's moves, and the floor."""

    sides: Inequality
    squared_gradients: np.ndarray
    error: float
    floor: float


@cache
def books(beta: float, kl: float = 1.0, schedule=inverse_sqrt) -> Books:
    start, bed = linear_vae(generator=torch.Generator().manual_seed(START), dtype=torch.float64), problem(beta)
    objective = Objective(beta=kl * beta)
    path = record(start, analytic_kl, objective, bed.data, adam, schedule(SCALE), STEPS, BATCH, SEEDS)
    value = vmap(bed.value)
    gradient = vmap(bed.gradient)(path.points[:-1].flatten(0, 1)).view_as(path.gradients)
    tops = vmap(lambda p: torch.linalg.eigvalsh(bed.hessian(p))[-1], chunk_size=512)(path.points[::10].flatten(0, 1))
    smoothness, error = 1.2 * float(tops.max()), 0.0
    account = ledger.AdamLedger.begin(path.points[0])
    before = value(path.points[0])
    for k, gamma in enumerate(path.gamma.tolist()):
        if k == WARMUP:
            before = value(path.points[k] + ledger.offset(account))
        account = ledger.record_step(account, path.gradients[k], gradient[k], gamma, smoothness, start=WARMUP)
        error = max(error, float((account.move - (path.points[k + 1] - path.points[k])).abs().max()))
    after = value(path.points[-1] + ledger.offset(account))
    floor = resting_place(Loss(start, analytic_kl, objective), bed.data, path.named(path.points[-1, 0]))
    squares = gradient.square().sum(-1).T.numpy()
    return Books(ledger.sides(account, before, after), squares, error, floor)


def resting_place(loss, data, parameters) -> float:
    """|grad f|^2 where Adam with these betas comes to rest, from 4096 replicates at one point."""
    draws = fresh(loss, data, BATCH, torch.Generator().manual_seed(1))
    found = torch.cat(
        [torch.cat([g.flatten(1) for g in c.values()], 1) for c in gradients(loss, draws, 4096, parameters)]
    )
    third = (found - found.mean(0)).pow(3).mean(0)
    return float(np.square(predictions.adam_fixed_point(third, found.square().mean(0), BETAS)).sum())


def balance(beta: float, run: Books) -> Verdict:
    ratio = float(run.sides.right.mean() / run.sides.left.mean())
    details = {"beta": beta, "ratio": ratio, "largest_error_of_moves": run.error}
    return not_negative("the trajectory ledger (T) of Adam balances", run.sides.margin, **details)


def decay(beta: float, run: Books) -> Verdict:
    """T_n <= max(T_m sqrt(m/n) log n / log m, floor) with m = n/10: the paper's rate, fitted to the first tenth."""
    first = STEPS // 10
    envelope = np.sqrt(first / STEPS) * np.log(STEPS) / np.log(first)
    early, late = run.squared_gradients[:, :first].mean(-1), run.squared_gradients.mean(-1)
    margin = np.maximum(envelope * early, run.floor) - late
    details = {"beta": beta, "ratio": float(late.mean() / early.mean() / envelope), "floor": run.floor}
    return not_negative("Adam decays to the larger of its envelope and its floor", margin, **details)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("claim", [balance, decay], ids=lambda claim: claim.__name__)
def test_adam(claim, beta, verify):
    verify(lambda: claim(beta, books(beta)))


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_the_ledger_follows_torch_and_is_not_vacuous(beta):
    run = books(beta)
    assert run.error < 1e-12
    assert run.sides.right.mean() / run.sides.left.mean() < 12
    assert run.floor < 1e-3 * run.squared_gradients[:, -1].mean()


def test_half_the_kullback_leibler_term_does_not_balance():
    assert not balance(4.0, books(4.0, kl=0.5)).passed


def test_a_constant_step_does_not_decay():
    run = books(4.0, schedule=constant)
    assert not decay(4.0, run).passed
    assert balance(4.0, run).passed, "the ledger is about gradients, not about the schedule"
