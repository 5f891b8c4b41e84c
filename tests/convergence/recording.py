"""Training, recorded at every step, and what an exact objective says of every point that was visited."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from vaebench.gates.reference import exact_by_quadrature
from vaebench.gradients.loss import Loss, loss_function
from vaebench.gradients.objectives import Objective
from vaebench.measures.moments import Replicates, fresh, gradients
from vaebench.measures.probes import top_curvature
from vaebench.theory import constants, envelopes, quadrature
from vaebench.theory.problems import linear, linear_noise
from vaebench.theory.series import Inequality
from vaebench.training.compilation import recorder
from vaebench.training.fleet import train
from vaebench.training.records import Step, geometric

Function = Callable[[dict[str, Tensor]], Tensor]


class Path(NamedTuple):
    """Every step of a fleet, parameters flattened in the order of `shapes`.

    Attributes:
        gamma: the steps the theory speaks of, (n,).
        points: (n + 1, S, p).
        gradients: what the optimizer was given, (n, S, p).
        shapes: of the parameters, by name.
        data: (N, *event).
    """

    gamma: np.ndarray
    points: Tensor
    gradients: Tensor
    shapes: dict[str, torch.Size]
    data: Tensor

    def named(self, points: Tensor) -> dict[str, Tensor]:
        """Flat parameters (..., p) by name."""
        return by_name(points, self.shapes)

    def checkpoints(self, count: int) -> list[int]:
        """About so many of the steps 0 .. n, geometric."""
        steps = geometric(len(self.gamma), 40)
        return sorted({steps[i] for i in np.linspace(0, len(steps) - 1, count).round().astype(int)})


def by_name(points: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    parts = points.split([shape.numel() for shape in shapes.values()], -1)
    return {n: part.unflatten(-1, shape) for (n, shape), part in zip(shapes.items(), parts, strict=True)}


def record(model, estimator, objective, data, optimizer, schedule, steps, batch_size, seeds, **options) -> Path:
    """`vaebench.training.fleet.train` with recorded gradients, and the schedule's own steps beside the points."""
    points, taken, shapes = [], [], {}

    def flatten(stacked):
        return torch.cat([tensor.flatten(1) for tensor in stacked.values()], 1)

    def observe(step: Step) -> None:
        if not points:
            shapes.update({name: tensor.shape[1:] for name, tensor in step.before.items()})
            points.append(flatten(step.before))
        points.append(flatten(step.after))
        taken.append(flatten(step.gradients))

    run = train(
        model, estimator, objective, data, optimizer, schedule, steps, batch_size, seeds,
        checkpoints=(0, steps), observe=observe, compiler=recorder(), **options,
    )  # fmt: skip
    last = list(run)[-1]
    assert not last.diverged, last.diverged
    gamma = np.array([schedule(k) for k in range(1, steps + 1)])
    return Path(gamma, torch.stack(points), torch.stack(taken), shapes, data)


def exact_by_rule(
    model: nn.Module, objective: Objective, data: Tensor, rule: quadrature.Rule, points: int = 160
) -> Function:
    """The exact loss, minus the bound averaged over the data, of a model with one or two latents."""
    function = loss_function(Loss(model, exact_by_quadrature(rule, points), objective))
    return lambda parameters: function(parameters, data, data)


def values_and_gradients(function: Function, path: Path, chunk: int = 128) -> tuple[np.ndarray, Tensor]:
    """f at all points, (S, n + 1), and its gradients where steps began, (n, S, p)."""

    def one(point: Tensor) -> Tensor:
        return function(path.named(point))

    n, members, size = path.points.shape
    gradients, values = vmap(grad_and_value(one), chunk_size=chunk)(path.points.flatten(0, 1))
    return values.view(n, members).T.numpy(), gradients.view(n, members, size)[:-1]


class Linear(NamedTuple):
    """The linear VAE on its data, in closed form."""

    data: Tensor
    noise_variance: float
    beta: float

    @property
    def scatter(self) -> Tensor:
        return self.data.mT @ self.data / len(self.data)

    def blocks(self, point: Tensor) -> linear.LinearParameters:
        features = self.data.shape[1]
        return linear.unflatten(point, features, len(point) // (2 * features + 1))

    def value(self, point: Tensor) -> Tensor:
        return linear.objective(self.blocks(point), self.scatter, self.noise_variance, self.beta)

    def gradient(self, point: Tensor) -> Tensor:
        return linear.flatten(linear.gradient(self.blocks(point), self.scatter, self.noise_variance, self.beta))

    def hessian(self, point: Tensor) -> Tensor:
        return linear.hessian(self.blocks(point), self.scatter, self.noise_variance, self.beta)

    def covariance(self, point: Tensor, batch_size: int) -> Tensor:
        """Of the gradient by `analytic_kl`."""
        split = linear_noise.gradient_covariance(self.blocks(point), self.data, self.noise_variance, self.beta)
        return split.at(batch_size)


class Exact(NamedTuple):
    """Everything the inequalities speak of, per seed and step; (S, n) at x_{k-1} unless said otherwise."""

    gamma: np.ndarray  # (n,)
    values: np.ndarray  # (S, n + 1)
    squared_gradients: np.ndarray
    smoothness: np.ndarray  # largest curvature of the two ends of step k
    noise: np.ndarray  # trace of the covariance of the gradient estimate
    curved_noise: np.ndarray  # tr(H Sigma)
    curved_gradient: np.ndarray  # grad' H grad


def examine(path: Path, problem: Linear, batch_size: int) -> Exact:
    """Every exact quantity along a path of SGD by `analytic_kl`."""

    def one(point: Tensor) -> tuple[Tensor, ...]:
        g, h = problem.gradient(point), problem.hessian(point)
        noise = problem.covariance(point, batch_size)
        top = torch.linalg.eigvalsh(h)[-1]
        return problem.value(point), g @ g, top, noise.trace(), (h * noise).sum(), g @ h @ g

    n, members, _ = path.points.shape
    rows = vmap(one, chunk_size=512)(path.points.flatten(0, 1))
    value, square, top, *rest = (row.view(n, members).T.numpy() for row in rows)
    ends = np.maximum(top[:, :-1], top[:, 1:])
    return Exact(path.gamma, value, square[:, :-1], ends, *(row[:, :-1] for row in rest))


class Conditional(NamedTuple):
    """What (C-u) needs where constants are measured, not proved: it holds given them, or one of them is too small."""

    gamma: np.ndarray  # (n,)
    values: np.ndarray  # (S, n + 1), exact
    squared_gradients: np.ndarray  # (S, n), exact
    smoothness: float  # 1.5 times the largest curvature at six checkpoints of two members
    noise: float  # largest upper 99.9 % limit of the variance at those of the first member

    def sides(self) -> Inequality:
        return envelopes.uniform_telescoped(
            self.gamma, self.squared_gradients, self.values, self.smoothness, self.noise
        )


def measure(path: Path, function: Function, loss: Loss, batch_size: int, replicates: int = 400) -> Conditional:
    """The exact function along a path, with constants measured on it; `loss` is what was trained."""
    values, exact = values_and_gradients(function, path)
    curvatures, noise = [], []
    for k in path.checkpoints(6):
        curvatures += [top_curvature(function, path.named(path.points[k, s])) for s in (0, 1)]
        draws = fresh(loss, path.data, batch_size, torch.Generator().manual_seed(k))
        found = flat_gradients(loss, draws, replicates, path.named(path.points[k, 0]))
        noise.append(float(constants.measured_noise(found)))
    smoothness = float(constants.measured_smoothness(curvatures))
    return Conditional(path.gamma, values, exact.square().sum(-1).T.numpy(), smoothness, max(noise))


def flat_gradients(loss: Loss, draws: Replicates, count: int, parameters: dict[str, Tensor]) -> Tensor:
    """Gradient replicates (R, p)."""
    chunks = gradients(loss, draws, count, parameters)
    return torch.cat([torch.cat([g.flatten(1) for g in chunk.values()], 1) for chunk in chunks])


def flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in gradient.values()])
