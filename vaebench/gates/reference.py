"""Exact values, gradients and curvatures of a bound, for all members of a fleet at once, where they can be had.

In closed form for a `ConjugateModel` at alpha = 1; by quadrature for one or two latents; otherwise not at all.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import grad, grad_and_value, jacrev, vmap

from vaebench.gradients.estimators import Estimator, exact
from vaebench.gradients.loss import Loss, Parameters, loss_function, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.gradients.rounding import explained
from vaebench.measures import top_curvature
from vaebench.measures.cost import saved_bytes
from vaebench.models import ConjugateModel, LatentModel, LinearVAE
from vaebench.support.repeatable import preserved
from vaebench.theory import quadrature

HELD = 2**20  # numbers kept by one quadrature before members, and then rows of data, take turns: more come slower
CACHED = 2**18  # the same of a closed form: what a cache holds is faster by half
FINE = {1: (181, 480), 2: (81, 320)}  # rules that coarser ones are held against, by the number of latents
RULES = ((31, 80), (41, 120), (61, 160), (101, 320))
AGREEMENT = {1: 1e-6, 2: 1e-4}  # of gradients at the start, relative, by the number of latents
COARSEST = 1e-6  # unit in the last place of numbers in which an integral is taken
HERMITE = 41  # nodes of Gauss and Hermite's rule, at most: it is held against even ones
SPREAD, FEW = 32, 4  # rows by which a rule is judged, and by which it is known what one keeps


def flat(stacked: Parameters) -> Tensor:
    """Parameters parameters or gradients (S, *shape) by name, side by side: (S, p), in the order of the names."""
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in stacked.values()], 1)


def unflatten(vectors: Tensor, like: Parameters) -> Parameters:
    """Undo `flat`: (S, p), or (p,) of one, to parameters by name, with the shapes and the dtype of `like`."""
    vectors, found, start = vectors.to(next(iter(like.values()))), {}, 0
    for name, tensor in like.items():
        shape = tensor.shape[1:]
        piece = vectors.narrow(-1, start, shape.numel())  # not split: of a part of a split nothing may be changed
        found[name] = piece.unflatten(-1, shape) if shape else piece.squeeze(-1)
        start += shape.numel()
    return found


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
    """The surrogate of so many nodes: Gauss and Hermite's where log w itself is integrated by few, else even ones."""
    if objective.alpha == 1 and points <= HERMITE:
        return exact_by_quadrature(quadrature.gauss_hermite(points, model.latents), outer)
    return exact_by_quadrature(quadrature.trapezoid(points, model.latents), outer)


@dataclass(frozen=True)
class Reference:
    """What is known exactly of minus a bound, averaged over the data.

    Attributes:
        loss: model, exact surrogate and objective.
        data: (N, *event), or what has the same bound.
        kind: "closed form" or "quadrature".
        numbers: that the gradient of one row keeps for its backward pass, those of a closed form but its data.
        held: such numbers at once; members and rows take turns, so that memory does not grow with them.
        finer: the same by a finer rule, None of a closed form.
        error: that of a gradient, relative to the largest, as far as it is known.
    """

    loss: Loss
    data: Tensor
    kind: str
    numbers: int
    held: int = HELD
    finer: "Reference | None" = None
    error: float = 0.0

    @cached_property
    def _unused(self) -> Tensor:
        return self.data.new_zeros(self.loss.objective.samples, len(self.data), self.loss.model.latents)

    @property
    def size(self) -> int:
        """Numbers that one gradient keeps for its backward pass: its time is in proportion."""
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

    def error_at(self, stacked: Parameters) -> float:
        """How far gradients at rows spread over the data are from a finer rule's, at worst.

        Args:
            stacked: parameters (S, *shape) by name.

        Returns:
            The largest over members, relative to the largest number of a gradient; infinite where that is not finite.
        """
        if self.finer is None:
            return 0.0
        return _off(self.at_some_rows(stacked), self.finer.at_some_rows(stacked))

    def at_some_rows(self, stacked: Parameters) -> Tensor:
        """The gradients (S, p) of the mean over rows that are spread over the data."""
        return replace(self, data=_some(self.data)).evaluate(stacked)[1]

    def is_finite(self, stacked: Parameters) -> bool:
        """Whether values and gradients are at such parameters, at all rows."""
        return all(bool(part.isfinite().all()) for part in self.evaluate(stacked))

    def top_curvatures(self, stacked: Parameters) -> Tensor:
        """Largest |eigenvalue| of the Hessian of each member, (S,), without forming it."""
        value = loss_function(self.loss)
        each = zip(*(tensor.unbind() for tensor in stacked.values()), strict=True)
        found = [
            top_curvature(lambda p: value(p, self.data, self._unused), dict(zip(stacked, member, strict=True)))
            for member in each
        ]
        return torch.tensor(found, dtype=self.data.dtype, device=self.data.device)

    def hessians(self, stacked: Parameters) -> Tensor:
        """Dense Hessians (S, p, p); for small models."""
        value = loss_function(self.loss)

        def of_vector(vector: Tensor, x: Tensor, noise: Tensor) -> Tensor:
            return value(unflatten(vector, stacked), x, noise)

        vectors = flat(stacked)
        members, blocks = self._turns(max(1, vectors.shape[1] // 2))
        curved = vmap(jacrev(grad(of_vector)), (0, None, None), chunk_size=members)
        return sum(share * curved(vectors, x, noise) for x, noise, share in blocks)  # pyright: ignore[reportReturnType]


def exact_reference(model: LatentModel, objective: Objective, data: Tensor) -> Reference | None:
    """The exact reference of a model's bound, if there is one.

    Args:
        model: trusted: what is claimed of a gradient is claimed of this model's bound.
        objective: trusted likewise; only K, alpha and beta enter, by the bound they name.
        data: (N, *event).

    Returns:
        The reference, or None: more than two latents without a closed form, half precision, or weights too wide for the
        rules.
    """
    objective = Objective(objective.samples, objective.alpha, objective.beta)
    if objective.alpha == 1 and isinstance(model, ConjugateModel):
        data = _moments_only(data) if type(model) is LinearVAE else data
        return Reference(Loss(model, exact, objective), data, "closed form", data[0].numel(), CACHED)
    if model.latents > 2 or not isinstance(model, nn.Module) or torch.finfo(data.dtype).eps > COARSEST:
        return None
    start = {n: p.detach()[None] for n, p in own_parameters(Loss(model, exact, objective)).items()}
    allowed = max(AGREEMENT[model.latents], explained(torch.finfo(data.dtype).eps))
    finer = _by_rule(FINE[model.latents], model, objective, data)
    truth = finer.at_some_rows(start)
    for rule in RULES if model.latents == 1 else RULES[:3]:
        found = _by_rule(rule, model, objective, data)
        if _off(found.at_some_rows(start), truth) <= allowed:
            return replace(found, finer=finer)
    return None


def _by_rule(rule: tuple[int, int], model: LatentModel, objective: Objective, data: Tensor) -> Reference:
    loss = Loss(model, _surrogate(*rule, model, objective), objective)
    return Reference(loss, data, "quadrature", _kept(loss, data))


def _moments_only(data: Tensor) -> Tensor:
    """As many rows as columns, with the same second moments: all that the bound of a linear VAE knows of its data."""
    count, width = data.shape
    if count <= width:
        return data
    values, vectors = torch.linalg.eigh(data.T @ data / count)
    return (width * values.clamp(min=0)).sqrt()[:, None] * vectors.T


def _off(mine: Tensor, truth: Tensor) -> float:
    """The largest difference of gradients (S, p), relative to the largest of each true one's numbers; over members."""
    errors = (mine - truth).abs().amax(1) / truth.abs().amax(1)
    return float(errors.nan_to_num(math.inf, math.inf).max())


def _kept(loss: Loss, data: Tensor) -> int:
    """Numbers that the gradient of one row keeps for its backward pass."""
    few = data[:FEW]
    noise = few.new_zeros(loss.objective.samples, len(few), loss.model.latents)
    with preserved(loss), torch.enable_grad():
        return saved_bytes(lambda: loss(few, noise)) // (len(few) * data.element_size())


def _some(data: Tensor) -> Tensor:
    """Rows spread over the data, and the two farthest from the mean, for which a rule is hardest."""
    far = (data - data.mean(0)).flatten(1).square().sum(1).argsort(descending=True)[:2].tolist()
    return data[sorted({*range(0, len(data), -(-len(data) // SPREAD)), *far})]
