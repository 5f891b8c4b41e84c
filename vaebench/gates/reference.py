"""Exact values, gradients and curvatures of a bound, for all members of a fleet at once, where they can be had.

In closed form for a `ConjugateModel` at alpha = 1; by quadrature for one or two latents; otherwise not at all.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import grad, grad_and_value, jacrev, vmap

from vaebench.gradients.estimators import Estimator, exact
from vaebench.gradients.loss import Loss, Parameters, loss_function, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.measures.probes import top_curvature
from vaebench.models import ConjugateModel, LatentModel, LinearVAE
from vaebench.theory import quadrature

HELD = 2**23  # numbers in one quadrature, before members, and then rows of data, take turns
CACHED = 2**18  # the same of a closed form: what a cache holds is faster by half
FINE = {1: (181, 480), 2: (81, 320)}  # rules that coarser ones are held against, by the number of latents
RULES = ((31, 80), (41, 120), (61, 160), (101, 320))
AGREEMENT = {1: 1e-6, 2: 1e-4}  # of gradients, relative, by the number of latents


def flat(stacked: Parameters) -> Tensor:
    """Parameters parameters or gradients (S, *shape) by name, side by side: (S, p), in the order of the names."""
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in stacked.values()], 1)


def unflatten(vectors: Tensor, like: Parameters) -> Parameters:
    """Undo `flat`: (S, p) to parameters by name, with the shapes of `like`."""
    shapes = {name: tensor.shape[1:] for name, tensor in like.items()}
    pieces = vectors.split([shape.numel() for shape in shapes.values()], -1)
    return {n: v.unflatten(-1, s) if s else v.squeeze(-1) for (n, s), v in zip(shapes.items(), pieces, strict=True)}


def exact_by_quadrature(rule: quadrature.Rule, outer: int) -> Estimator:
    """The exact bound as an estimator without variance, by a rule over one or two latents.

    Args:
        rule: nodes and weights of the latents.
        outer: nodes of the second integral, that over the mean of K weights; not used at alpha = 1.

    Returns:
        An estimator that does not look at its noise.
    """

    def integrate(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
        here, q = quadrature.Rule(*(part.to(x) for part in rule)), model.posterior(x)
        z = q.transport(here.nodes.unsqueeze(1).expand(-1, len(x), -1))
        log_w = objective.log_weights(model, x, z, q).mT
        if objective.alpha == 1:
            return quadrature.elbo(log_w, here)
        return quadrature.importance_bound(log_w, here, objective.samples, objective.alpha, outer)

    return integrate


def _surrogate(points: int, outer: int, model: LatentModel, objective: Objective) -> Estimator:
    """The surrogate of so many nodes: Gauss and Hermite's where log w itself is integrated, else even ones."""
    if objective.alpha == 1:
        return exact_by_quadrature(quadrature.gauss_hermite(min(points, 41), model.latents), outer)
    return exact_by_quadrature(quadrature.trapezoid(points, model.latents), outer)


@dataclass(frozen=True)
class Reference:
    """What is known exactly of minus a bound, averaged over the data.

    Attributes:
        loss: model, exact surrogate and objective.
        data: (N, *event), or what has the same bound.
        kind: "closed form" or "quadrature".
        numbers: that the value of one row takes.
        held: such numbers at once; members and rows take turns, so that memory does not grow with them.
    """

    loss: Loss
    data: Tensor
    kind: str
    numbers: int
    held: int = HELD

    @cached_property
    def _unused(self) -> Tensor:
        return self.data.new_zeros(self.loss.objective.samples, len(self.data), self.loss.model.latents)

    @property
    def size(self) -> int:
        """Numbers that one evaluation takes: numbers of a row times rows."""
        return self.numbers * len(self.data)

    def _turns(self, copies: int) -> tuple[int, list[tuple[Tensor, Tensor, float]]]:
        """Members at once, and blocks of rows with noise and share of the mean, if every member takes `copies`."""
        count, fit = len(self.data), max(1, self.held // (self.numbers * copies))
        rows = min(count, fit)
        blocks = zip(self.data.split(rows), self._unused.split(rows, 1), strict=True)
        return max(1, fit // count), [(x, noise, len(x) / count) for x, noise in blocks]

    def evaluate(self, stacked: Parameters) -> tuple[Tensor, Tensor]:
        """Values (S,) and gradients (S, p) at stacked parameters."""
        members, blocks = self._turns(1)
        both = vmap(grad_and_value(loss_function(self.loss)), (0, None, None), chunk_size=members)
        found = [(both(stacked, x, noise), share) for x, noise, share in blocks]
        values = sum(share * values for (_, values), share in found)
        return values, sum(share * flat(gradients) for (gradients, _), share in found)  # pyright: ignore[reportReturnType]

    def hessians(self, stacked: Parameters) -> Tensor:
        """Dense Hessians (S, p, p); for small models."""
        value = loss_function(self.loss)
        shapes = {name: tensor.shape[1:] for name, tensor in stacked.items()}

        def of_vector(vector: Tensor, x: Tensor, noise: Tensor) -> Tensor:
            pieces = vector.split([shape.numel() for shape in shapes.values()])
            named = {n: v.view(shape) for (n, shape), v in zip(shapes.items(), pieces, strict=True)}
            return value(named, x, noise)

        vectors = flat(stacked)
        members, blocks = self._turns(max(1, vectors.shape[1] // 2))
        curved = vmap(jacrev(grad(of_vector)), (0, None, None), chunk_size=members)
        return sum(share * curved(vectors, x, noise) for x, noise, share in blocks)  # pyright: ignore[reportReturnType]

    def top_curvature(self, stacked: Parameters) -> float:
        """The largest |eigenvalue| of the Hessian at the parameters of one member, stacked; no Hessian is formed."""
        value, (_, blocks) = loss_function(self.loss), self._turns(1)

        def whole(parameters: dict[str, Tensor]) -> Tensor:
            return torch.stack([share * value(parameters, x, noise) for x, noise, share in blocks]).sum()

        return top_curvature(whole, {name: tensor.squeeze(0) for name, tensor in stacked.items()})


def exact_reference(model: LatentModel, objective: Objective, data: Tensor) -> Reference | None:
    """The exact reference of a model's bound, if there is one.

    Args:
        model: trusted: what is claimed of a gradient is claimed of this model's bound.
        objective: trusted likewise; only K, alpha and beta enter, by the bound they name.
        data: (N, *event).

    Returns:
        The reference, or None: more than two latents without a closed form, or weights too wide for the rules.
    """
    objective = Objective(objective.samples, objective.alpha, objective.beta)
    if objective.alpha == 1 and isinstance(model, ConjugateModel):
        data = _moments_only(data) if type(model) is LinearVAE else data
        return Reference(Loss(model, exact, objective), data, "closed form", data[0].numel(), CACHED)
    if model.latents > 2 or not isinstance(model, nn.Module):
        return None
    rule = _sufficient(model, objective, data)
    if rule is None:
        return None
    points, outer = rule
    numbers = points**model.latents * (outer if objective.alpha != 1 else 1)
    surrogate = _surrogate(points, outer, model, objective)
    return Reference(Loss(model, surrogate, objective), data, "quadrature", numbers)


def _moments_only(data: Tensor) -> Tensor:
    """As many rows as columns, with the same second moments: all that the bound of a linear VAE knows of its data."""
    count, width = data.shape
    if count <= width:
        return data
    values, vectors = torch.linalg.eigh(data.T @ data / count)
    return (width * values.clamp(min=0)).sqrt()[:, None] * vectors.T


def _sufficient(model: LatentModel, objective: Objective, data: Tensor) -> tuple[int, int] | None:
    few = data[:4]  # a rule is chosen per example, so a few examples decide

    def gradient(points: int, outer: int) -> Tensor:
        loss = Loss(model, _surrogate(points, outer, model, objective), objective)
        found = grad(loss_function(loss))(own_parameters(loss), few, few)
        return torch.cat([g.flatten() for g in found.values()])

    fine = gradient(*FINE[model.latents])
    candidates = RULES if model.latents == 1 else RULES[:3]
    for rule in candidates:
        if (gradient(*rule) - fine).abs().max() <= AGREEMENT[model.latents] * fine.abs().max():
            return rule
    return None
