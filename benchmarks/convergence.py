"""How well training does what theory says it does: exact laws of the linear VAE, and what a fixed budget buys.

Every number is positive, lower is better, and the same on every run of a commit: seeds, data and starts are
fixed. A number that diverged, or a goal that was never reached, is recorded as the limit LARGE.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.func import vmap

from benchmarks.common import generator, part

SEEDS, STEPS, BATCH = range(8), 500, 8
SCALES = {0.3: 0.035, 1.0: 0.03, 4.0: 0.022}  # C by beta
OPTIMIZERS = {"sgd": 0.03, "adam": 0.03, "amsgrad": 0.03, "adagrad": 0.3, "rmsprop": 0.03}
ESTIMATORS = ["pathwise", "doubly_reparameterized", "leave_one_out"]
LARGE = 1e6
Numbers = dict[Any, dict[str, float]]


def where_it_exists(train: Callable[[], Numbers]) -> Numbers:
    """What `train` returns; nothing on a commit that lacks a part, where the benchmarks are n/a."""
    try:
        return train()
    except NotImplementedError:
        return {}


def number(cache: Numbers, key: Any, name: str) -> float:
    value = cache[key][name]
    return min(max(value, 1 / LARGE), LARGE) if math.isfinite(value) else LARGE


def require(cache: Numbers) -> None:
    if not cache:
        raise NotImplementedError("this commit has no fleets or no theory")


def linear_data(rows: int = 64, features: int = 6, latents: int = 2) -> torch.Tensor:
    data = part("data").linear_gaussian(rows, features, latents, generator=generator(), dtype=torch.float64)
    return data / data.std()


def visited(model: Any, estimator: Any, objective: Any, data: torch.Tensor, rule: Any, schedule: Any, **options: int):
    """Every point of a fleet's run, flat, (n + 1, S, p), and the steps (n,)."""
    steps, points = options.get("steps", STEPS), []

    def flat(stacked: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([tensor.flatten(1) for tensor in stacked.values()], 1)

    def observe(step: Any) -> None:
        points.extend([flat(step.before), flat(step.after)] if not points else [flat(step.after)])

    size = options.get("batch_size", BATCH)
    run = part("training.fleet").train(
        model, estimator, objective, data, rule, schedule, steps, size, SEEDS, checkpoints=(0, steps), observe=observe
    )
    for _ in run:
        pass
    return torch.stack(points), np.array([schedule(k) for k in range(1, steps + 1)])


def first_below(squares: np.ndarray, level: float) -> float:
    """The first step where the mean over seeds of |grad f|^2, (S, n), is at most `level`."""
    below = np.flatnonzero(squares.mean(0) <= level)
    return float(below[0] + 1) if len(below) else math.inf


def flops(model: Any, estimator: Any, objective: Any, data: torch.Tensor) -> int:
    """Of one member's gradient."""
    estimators = part("gradients.estimators")
    loss, x = part("gradients.loss").Loss(model, estimator, objective), data[:BATCH]
    noise = estimators.draw_noise(model, x, objective, generator())
    return part("measures.cost").count(lambda: torch.autograd.grad(loss(x, noise), list(model.parameters()))).flops


class LinearProblem:
    """f, its gradient and curvature and the noise, in closed form, at flat parameters."""

    def __init__(self, beta: float):
        self.theory, self.noise = part("theory.problems.linear"), part("theory.problems.linear_noise")
        self.data, self.beta, self.s = linear_data(), beta, 0.5
        self.scatter = self.data.mT @ self.data / len(self.data)
        self.optimum, self.minimum = self.theory.optimum(self.scatter, 2, self.s, beta)

    def exact(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value and squared gradient."""
        blocks = self.theory.unflatten(point, 6, 2)
        gradient = self.theory.flatten(self.theory.gradient(blocks, self.scatter, self.s, self.beta))
        return self.theory.objective(blocks, self.scatter, self.s, self.beta), gradient @ gradient

    def second_order(self, point: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Largest curvature, trace of the noise, tr(H Sigma), grad' H grad."""
        blocks = self.theory.unflatten(point, 6, 2)
        gradient = self.theory.flatten(self.theory.gradient(blocks, self.scatter, self.s, self.beta))
        hessian = self.theory.hessian(blocks, self.scatter, self.s, self.beta)
        noise = self.noise.gradient_covariance(blocks, self.data, self.s, self.beta).at(BATCH)
        top = torch.linalg.eigvalsh(hessian)[-1]
        return top, noise.trace(), (hessian * noise).sum(), gradient @ hessian @ gradient


def along(function: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], points: torch.Tensor) -> list[np.ndarray]:
    """A function's values at all points, each (S, n + 1)."""
    found = vmap(function, chunk_size=512)(points.flatten(0, 1))
    return [value.view(points.shape[:2]).T.numpy() for value in found]


def linear_start() -> Any:
    return part("models").linear_vae(generator=generator(), dtype=torch.float64)


class Sgd:
    """SGD with C / sqrt(n) on the linear VAE, beta-ELBO, L C near 0.8."""

    version = "1"
    param_names = ("beta",)
    params = (list(SCALES),)

    def setup_cache(self) -> Numbers:
        return where_it_exists(lambda: {beta: self.train(beta) for beta in SCALES})

    def train(self, beta: float) -> dict[str, float]:
        problem, estimator = LinearProblem(beta), part("gradients.estimators").analytic_kl
        objective = part("gradients.objectives").Objective(beta=beta)
        rule, schedule = part("training.optimizers").sgd, part("training.schedules").inverse_sqrt(SCALES[beta])
        points, gamma = visited(linear_start(), estimator, objective, problem.data, rule, schedule)
        values, squares = along(problem.exact, points)
        top, noise, curved_noise, curved_gradient = (row[:, :-1] for row in along(problem.second_order, points))
        squares = squares[:, :-1]
        sides = part("theory.envelopes").uniform_telescoped(gamma, squares, values, top, noise)
        law = part("theory.predictions").mean_squared_gradient(gamma, values, curved_noise, curved_gradient)
        measured, bound = sides.left[:, -1].mean(), sides.right[:, -1].mean()
        steps = first_below(squares, 1.0)
        return {
            "envelope": float(measured / max(bound, measured / LARGE)),
            "identity": float(abs(law[:, -1].mean() / squares.mean() - 1)),
            "gap": float(values[:, -1].mean() - problem.minimum),
            "steps": steps,
            "flops": steps * flops(linear_start(), estimator, objective, problem.data),
        }

    def setup(self, cache: Numbers, beta: float) -> None:
        require(cache)

    def track_envelope_ratio(self, cache: Numbers, beta: float) -> float:
        """The mean squared gradient over its bound (C-u); above 1 the bound is violated."""
        return number(cache, beta, "envelope")

    def track_identity_error(self, cache: Numbers, beta: float) -> float:
        """Relative error of the second-order identity for the mean squared gradient."""
        return number(cache, beta, "identity")

    def track_gap(self, cache: Numbers, beta: float) -> float:
        """f above its minimum after the last step."""
        return number(cache, beta, "gap")

    def track_steps_to_goal(self, cache: Numbers, beta: float) -> float:
        """Until the mean of |grad f|^2 is at most 1."""
        return number(cache, beta, "steps")

    def track_flops_to_goal(self, cache: Numbers, beta: float) -> float:
        """Of one member, until the mean of |grad f|^2 is at most 1."""
        return min(cache[beta]["flops"], LARGE**2)

    track_envelope_ratio.unit = "measured / bound"
    track_identity_error.unit = "relative error"
    track_gap.unit = "nats"
    track_steps_to_goal.unit = "steps"
    track_flops_to_goal.unit = "FLOPs"


class Rate:
    """SGD with C / sqrt(n) from the exact optimum: noise alone, where n^{-1/2} is attained."""

    version = "1"
    scale = 0.04

    def setup_cache(self) -> Numbers:
        return where_it_exists(self.train)

    def train(self) -> Numbers:
        problem, predictions, horizon = LinearProblem(1.0), part("theory.predictions"), 2 * STEPS
        best = problem.optimum
        start = part("models").LinearVAE(best.W.contiguous(), best.V.contiguous(), best.eta, problem.s)
        estimator, objective = part("gradients.estimators").analytic_kl, part("gradients.objectives").Objective()
        rule, schedule = part("training.optimizers").sgd, part("training.schedules").inverse_sqrt(self.scale)
        points, _ = visited(start, estimator, objective, problem.data, rule, schedule, steps=horizon)
        squares = along(problem.exact, points)[1][:, :-1]
        n = np.arange(1, horizon + 1)
        means = np.cumsum(squares, -1) / n
        late = slice(horizon // 10, None)
        slope = float(predictions.loglog_slope(n[late], means[:, late]).mean())
        hessian = problem.theory.hessian(best, problem.scatter, problem.s, 1.0)
        noise = problem.noise.gradient_covariance(best, problem.data, problem.s, 1.0).at(BATCH)
        law = predictions.noise_dominated(hessian, noise, self.scale, horizon).mean[-1]
        off = abs(math.log(means[:, -1].mean() / law))
        return {"rate": {"slope": 10 ** (slope + 0.5), "law": math.exp(off)}}

    def setup(self, cache: Numbers) -> None:
        require(cache)

    def track_slope_excess(self, cache: Numbers) -> float:
        """10^(slope + 1/2): what a tenfold n leaves of the mean squared gradient, over what n^{-1/2} leaves."""
        return number(cache, "rate", "slope")

    def track_law_error(self, cache: Numbers) -> float:
        """The mean squared gradient over the noise-dominated law, or the inverse: 1 is exact."""
        return number(cache, "rate", "law")

    track_slope_excess.unit = "factor per decade"
    track_law_error.unit = "ratio"


class Optimizers:
    """C / sqrt(n) on the linear VAE, by optimizer."""

    version = "1"
    param_names = ("optimizer",)
    params = (list(OPTIMIZERS),)

    def setup_cache(self) -> Numbers:
        return where_it_exists(lambda: {name: self.train(name) for name in OPTIMIZERS})

    def train(self, name: str) -> dict[str, float]:
        problem, optimizers = LinearProblem(1.0), part("training.optimizers")
        estimator, objective = part("gradients.estimators").analytic_kl, part("gradients.objectives").Objective()
        rule, schedule = getattr(optimizers, name), part("training.schedules").inverse_sqrt(OPTIMIZERS[name])
        points, _ = visited(linear_start(), estimator, objective, problem.data, rule, schedule)
        values, squares = along(problem.exact, points)
        gap = float(values[:, -1].mean() - problem.minimum)
        return {"gap": gap, "steps": first_below(squares[:, :-1], 1.0)}

    def setup(self, cache: Numbers, name: str) -> None:
        require(cache)

    def track_gap(self, cache: Numbers, name: str) -> float:
        """f above its minimum after the last step."""
        return number(cache, name, "gap")

    def track_steps_to_goal(self, cache: Numbers, name: str) -> float:
        """Until the mean of |grad f|^2 is at most 1."""
        return number(cache, name, "steps")

    track_gap.unit = "nats"
    track_steps_to_goal.unit = "steps"


class Importance:
    """IWAE with K = 5 on a linear VAE with one latent: the bound's exact value after training, by quadrature."""

    version = "1"
    param_names = ("estimator",)
    params = (ESTIMATORS,)

    def setup_cache(self) -> Numbers:
        return where_it_exists(lambda: {name: self.train(name) for name in ESTIMATORS})

    def train(self, name: str) -> dict[str, float]:
        theory, iwae = part("theory.problems.linear"), part("theory.quadrature")
        data = linear_data(16, 3, 1)
        start = part("models").linear_vae(3, 1, generator=generator(), dtype=torch.float64)
        estimator, objective = (
            part("gradients.estimators").ESTIMATORS[name],
            part("gradients.objectives").Objective(5, alpha=0),
        )
        rule, schedule = part("training.optimizers").sgd, part("training.schedules").inverse_sqrt(0.05)
        points, _ = visited(start, estimator, objective, data, rule, schedule, batch_size=4)
        grid = iwae.trapezoid(121, radius=6.0)

        def value(point: torch.Tensor) -> torch.Tensor:
            log_w = theory.log_weights(theory.unflatten(point, 3, 1), data.unsqueeze(1), grid.nodes, 0.5)
            return -iwae.importance_bound(log_w, grid, 5).mean()

        minimum = theory.optimum(data.mT @ data / len(data), 1, 0.5)[1]  # of minus the evidence, below any bound
        return {"gap": float(torch.stack([value(point) for point in points[-1]]).mean() - minimum)}

    def setup(self, cache: Numbers, name: str) -> None:
        require(cache)

    def track_gap(self, cache: Numbers, name: str) -> float:
        """Minus the bound, above the least minus log-evidence."""
        return number(cache, name, "gap")

    track_gap.unit = "nats"


class Inference:
    """Bayesian linear regression on the diabetes study by black-box variational inference, K = 8."""

    version = "1"
    param_names = ("estimator",)
    params = (ESTIMATORS,)

    def setup_cache(self) -> Numbers:
        return where_it_exists(lambda: {name: self.train(name) for name in ESTIMATORS})

    def train(self, name: str) -> dict[str, float]:
        models, bbvi = part("models"), part("theory.problems.regression")
        table = part("data").diabetes(dtype=torch.float64)
        design, response = table[:, :-1], table[:, -1]
        start = models.mean_field(models.GaussianRegression(design, 10.0))
        target = bbvi.regression(design, response, 10.0, 1.0)
        estimator, objective = part("gradients.estimators").ESTIMATORS[name], part("gradients.objectives").Objective(8)
        rule, schedule = part("training.optimizers").sgd, part("training.schedules").inverse_sqrt(0.002)
        points, _ = visited(start, estimator, objective, response[None], rule, schedule, batch_size=1)

        def exact(point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            q = bbvi.MeanField(*point.chunk(2))
            return bbvi.objective(q, target), torch.cat(bbvi.gradient(q, target)).square().sum()

        values, squares = along(exact, points)
        level = 0.1 * squares[:, 0].mean()
        return {
            "gap": float(values[:, -1].mean() - bbvi.optimum(target)[1]),
            "steps": first_below(squares[:, :-1], level),
        }

    def setup(self, cache: Numbers, name: str) -> None:
        require(cache)

    def track_gap(self, cache: Numbers, name: str) -> float:
        """f above its minimum after the last step."""
        return number(cache, name, "gap")

    def track_steps_to_goal(self, cache: Numbers, name: str) -> float:
        """Until the mean of |grad f|^2 is at most a tenth of what it was."""
        return number(cache, name, "steps")

    track_gap.unit = "nats"
    track_steps_to_goal.unit = "steps"


class Signal:
    """The encoder's gradient near the optimum of the linear VAE, given a batch of 4: noise over signal."""

    version = "1"
    param_names = ("estimator", "alpha", "K")
    params = (["pathwise", "doubly_reparameterized"], [0.0, 0.5], [8, 128])

    def setup(self, estimator: str, alpha: float, samples: int) -> None:
        problem = LinearProblem(1.0)
        source = generator()
        off = [b + 0.015 * torch.randn(b.shape, generator=source, dtype=b.dtype) for b in problem.optimum]
        self.model, self.x = part("models").LinearVAE(*off, problem.s), problem.data[:4]
        self.objective = part("gradients.objectives").Objective(samples, alpha)

    def moments(self, name: str) -> Any:
        estimators, moments = part("gradients.estimators"), part("measures.moments")
        loss = part("gradients.loss").Loss(self.model, estimators.ESTIMATORS[name], self.objective)
        draws = moments.conditional(loss, self.x, generator())
        return moments.gradient_moments(loss, draws, 500, groups=50)

    def track_inverse_snr(self, estimator: str, *_: object) -> float:
        """The signal is that of the doubly reparameterized gradient, which has the same expectation."""
        signal = self.moments("doubly_reparameterized")
        return 1 / part("measures.probes").snr(signal, self.moments(estimator), ("model.V", "model.eta")).value

    track_inverse_snr.unit = "noise / signal"
