"""Gradient replicates and their first two moments, from which `vaebench.measures.probes` computes.

What a replicate is decides what is measured: `fresh` draws minibatch and noise, `conditional` the noise alone.
Parameters are dicts under the names of `Loss` ("model.W"); without any, the module's own are used. R is the number
(count) of replicates, J that of their groups; generators are on the device of the model.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap

from vaebench.data.sampling import Sampler, Stream, repeated, whole, with_replacement
from vaebench.gradients.loss import Loss, Parameters, Tried, loss_function, own_parameters
from vaebench.gradients.trial import FEW, OVER_DRAWS, check_loss, require_differentiable, require_trainable
from vaebench.models import as_input, check_input, minibatch
from vaebench.support.checks import positive_integer
from vaebench.support.layers import explaining, like_parameters
from vaebench.support.repeatable import left_alone, preserved

STORED = 2**22  # numbers held in sums of gradients before replicates share them
CHUNK = 2**20  # numbers in gradients taken at once under vmap, and in sums multiplied at once
DRAWN = 256  # replicates that are drawn at once, at most: part of what a seed means
LARGE_NET_GROUPS = 16
COARSE = (8, 64)  # numbers of groups whose sums are multiplied with each other, at least and at most


class Replicates(NamedTuple):
    """What replicates are drawn from; `x, noise = take(n)`.

    Attributes:
        data: (N, *event).
        stream: of what a replicate draws of them.
        like: a parameter of the model.
        tried: the loss whose gradient was tried with these data, if one was.
    """

    data: Tensor
    stream: Stream
    like: Tensor
    tried: Tried | None = None

    def take(self, n: int) -> tuple[Tensor, Tensor]:
        """Minibatches (n, B, *event) and noise (n, K, B, D)."""
        indices, noise = self.stream.draw(n)
        return minibatch(self.data, indices, self.like), noise

    def few_at_a_time(self, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Minibatches and noise of R replicates, whose gradients are taken together, as many as a cache holds.

        They are drawn 256 at a time, or fewer of a large net: that is part of what a seed means.

        Args:
            count: R.
            size: parameters p.

        Yields:
            `take(n)` with n adding up to R.
        """
        drawn = max(1, min(DRAWN, CHUNK // size))
        together = drawn * max(1, CHUNK // (2 * drawn * max(size, self._numbers())))
        for start in range(0, count, together):
            stop = min(start + together, count)
            parts = [self.take(min(drawn, stop - first)) for first in range(start, stop, drawn)]
            yield parts[0] if len(parts) == 1 else (torch.cat([x for x, _ in parts]), torch.cat([n for _, n in parts]))

    def _numbers(self) -> int:
        """Numbers in the noise, or in the decoded rows, of one replicate, whichever are more."""
        samples, rows, latents = self.stream.noise_shape
        return samples * rows * max(latents, self.data[0].numel())


def fresh(loss: Loss, data: Tensor | Tried, batch_size: int, generator: torch.Generator) -> Replicates:
    """Replicates with a fresh minibatch, drawn with replacement, and fresh noise: the gradients of training."""
    rows = check_loss(loss, data)
    return _replicates(loss, rows, with_replacement(len(rows), batch_size, generator), batch_size, generator, data)


def conditional(loss: Loss, x: Tensor | Tried, generator: torch.Generator) -> Replicates:
    """Replicates with fresh noise on one fixed batch x: everything is conditional on that batch."""
    rows = check_loss(loss, x)
    return _replicates(loss, rows, whole(len(rows), len(rows), generator), len(rows), generator, x)


def nested(loss: Loss, data: Tensor | Tried, batch_size: int, inner: int, generator: torch.Generator) -> Replicates:
    """Fresh minibatches, each with `inner` >= 2 draws of noise in a row, for `gradient_split`."""
    rows = check_loss(loss, data)
    sampler = repeated(with_replacement(len(rows), batch_size, generator), inner)
    return _replicates(loss, rows, sampler, batch_size, generator, data)


def replicates(
    loss: Loss, data: Tensor | Tried, sampler: Sampler, batch_size: int, generator: torch.Generator
) -> Replicates:
    """Replicates of minibatches (n, B) of any sampler's indices, with fresh noise."""
    return _replicates(loss, check_loss(loss, data), sampler, batch_size, generator, data)


def _replicates(
    loss: Loss, rows: Tensor, sampler: Sampler, batch_size: int, generator: torch.Generator, given: Tensor | Tried
) -> Replicates:
    like, known = like_parameters(loss), given if isinstance(given, Tried) else None
    return Replicates(rows, Stream(sampler, loss.noise_shape(batch_size), like.dtype, generator), like, known)


def parameter_groups(loss: Loss, x: Tensor) -> dict[str, tuple[str, ...]]:
    """Names of all trained parameters ("whole"), of those of posterior(x) ("phi"), and of the rest ("theta")."""
    x = as_input(check_input(loss.model, x)[:1], like_parameters(loss))
    require_trainable(loss)
    names, own = tuple(own_parameters(loss)), dict(loss.named_parameters())
    with torch.enable_grad(), preserved(loss), explaining(loss, "The posterior"):
        q = loss.model.posterior(x)
        total = sum((part.sum() for part in q if part.requires_grad), x.new_zeros((), requires_grad=True))
        found = torch.autograd.grad(total, [own[name] for name in names], allow_unused=True)
    phi = tuple(name for name, used in zip(names, found, strict=True) if used is not None)
    return {"whole": names, "phi": phi, "theta": tuple(name for name in names if name not in phi)}


def gradients(
    loss: Loss, draws: Replicates, count: int, parameters: Parameters | None = None
) -> Iterator[dict[str, Tensor]]:
    """Gradients of independent replicates, in chunks: many at once of small nets, one by one of large ones.

    Yields:
        Gradients by name, each (n, *shape), with n adding up to R.
    """
    require_trainable(loss)
    parameters = own_parameters(loss) if parameters is None else parameters
    one = grad(loss_function(loss))
    many = vmap(one, in_dims=(None, 0, 0))
    tried = draws.tried is not None and draws.tried.of(loss)
    with left_alone(loss):
        for x, noise in draws.few_at_a_time(count, sum(p.numel() for p in parameters.values())):
            if not tried:
                require_differentiable(loss, x[0, :FEW], noise[0, :, :FEW], OVER_DRAWS)
                tried = True
            with explaining(loss, "The loss"):
                if len(x) == 1:
                    found = {name: g.unsqueeze(0) for name, g in one(parameters, x[0], noise[0]).items()}
                else:
                    found = many(parameters, x, noise)
            yield found


@dataclass(frozen=True)
class Moments:
    """First and second moments of R gradient replicates in J equal groups, by parameter.

    Attributes:
        along: inner products of the groups' sums with the sum of all, (J,) each.
        own: squared norms of the groups' sums, (J,) each.
        squares: the groups' sums of squared norms, (J,) each.
        mean: mean gradients, as the parameters.
        group_size: R / J.
        gram: inner products of the means of up to 64 groups of replicates, (G, G) each; empty if J has no such divisor.
    """

    along: dict[str, Tensor]
    own: dict[str, Tensor]
    squares: dict[str, Tensor]
    mean: dict[str, Tensor]
    group_size: int
    gram: dict[str, Tensor] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """The number of groups J."""
        return len(next(iter(self.own.values())))

    @property
    def count(self) -> int:
        """The number of replicates R."""
        return self.group_size * self.groups

    def squared_covariance(self, names: Collection[str] | None = None) -> float:
        """tr(Cov^2) of one gradient, without bias: what the variance of |E g|^2 has where the gradient is zero.

        Returns:
            The trace in the named parameters, not below 0; 0 if the groups' products were not kept. Inner products
            of G group means, double-centred without their diagonal (U-centred: Szekely & Rizzo, 2014), have a mean
            square over G (G - 3) of tr(Cov^2) / m^2, m the replicates of a group.
        """
        if not self.gram or not (names := tuple(self.gram if names is None else names)):
            return 0.0
        products = torch.stack([self.gram[name] for name in names]).sum(0)
        groups = len(products)
        products = products - torch.diag(products.diagonal())
        rows, total = products.sum(1), products.sum()
        centred = products - (rows[:, None] + rows) / (groups - 2) + total / ((groups - 1) * (groups - 2))
        centred = centred - torch.diag(centred.diagonal())
        return float(centred.square().sum()) / (groups * (groups - 3)) * (self.count / groups) ** 2


def gradient_moments(
    loss: Loss, draws: Replicates, count: int, parameters: Parameters | None = None, groups: int | None = None
) -> Moments:
    """The moments of R gradient replicates, as `gather` makes them, in memory of J times the parameters."""
    parameters = own_parameters(loss) if parameters is None else parameters
    return gather(gradients(loss, draws, count, parameters), count, groups)


def gather(chunks: Iterable[Mapping[str, Tensor]], count: int, groups: int | None = None) -> Moments:
    """The moments of R = `count` gradients that were drawn elsewhere and come in chunks by name, (n, *shape).

    Returns:
        The moments in J groups, the units of the jackknife; default R, or 16 when R gradients are too many to hold.

    Raises:
        ValueError: if there are fewer than 3 groups, or R is not a multiple of J.
    """
    chunks = iter(chunks)
    first = next(chunks)
    gathering = Gathering(first, count, groups)
    for chunk in chain([first], chunks):
        gathering.add(chunk)
    return gathering.moments()


class Gathering:
    """Sums of R gradients by group, of which only a few are there at a time; `gather` is this in one go.

    Args:
        like: some gradients by name, (n, *shape), for names, shapes and dtypes.
        count: R.
        groups: J; default R, or 16 when R gradients are too many to hold.

    Raises:
        ValueError: if there are fewer than 3 groups, or R is not a multiple of J.
    """

    def __init__(self, like: Mapping[str, Tensor], count: int, groups: int | None = None):
        if groups is None:
            size = sum(g[0].numel() for g in like.values())
            groups = count if count * size <= STORED else LARGE_NET_GROUPS
        if positive_integer("groups", groups) < 3 or positive_integer("count", count) % groups:
            raise ValueError(f"count must be a multiple of groups, and groups at least 3, got {count} and {groups}.")
        self.count, self.groups, self.seen = count, groups, 0
        self.shapes = {name: g.shape[1:] for name, g in like.items()}
        self.sums = {
            name: g.new_zeros(groups, g[0].numel(), dtype=torch.promote_types(g.dtype, torch.float32))
            for name, g in like.items()
        }
        self.squares = {name: g.new_zeros(groups, dtype=torch.float64) for name, g in like.items()}

    def add(self, chunk: Mapping[str, Tensor]) -> None:
        """Take in the next few gradients, by name, (n, *shape)."""
        stop = self.seen + len(next(iter(chunk.values())))
        for name, g in chunk.items():
            owner = torch.arange(self.seen, stop, device=g.device) // (self.count // self.groups)
            rows = g.reshape(len(g), -1).to(self.sums[name].dtype)
            self.sums[name].index_add_(0, owner, rows)
            self.squares[name].index_add_(0, owner, rows.square().sum(1, dtype=torch.float64))
        self.seen = stop

    def moments(self) -> Moments:
        """What was gathered."""
        count, groups = self.count, self.groups
        along, own, mean, gram = {}, {}, {}, {}
        coarse = next((g for g in range(min(COARSE[1], groups), COARSE[0] - 1, -1) if groups % g == 0), None)
        for name, owned in self.sums.items():
            mean[name] = (owned.sum(0) / count).view(self.shapes[name])
            pieces = [_products(piece, coarse, count) for piece in owned.split(max(1, CHUNK // groups), 1)]
            along[name], own[name], products = (torch.stack(parts).sum(0) for parts in zip(*pieces, strict=True))
            if coarse:
                gram[name] = products
        return Moments(along, own, self.squares, mean, count // groups, gram)


def _products(owned: Tensor, coarse: int | None, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inner products of some columns of the groups' sums (J, n): with the sum of all, own ones, and of coarse means."""
    along = (owned * owned.sum(0)).sum(1, dtype=torch.float64)
    own = owned.square().sum(1, dtype=torch.float64)
    if not coarse:
        return along, own, own.new_zeros(())
    means = owned.double().view(coarse, len(owned) // coarse, -1).sum(1) * (coarse / count)
    return along, own, means @ means.T
