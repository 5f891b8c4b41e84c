"""Pyro: a model, a guide and an ELBO object as a black box, and beside it the bound that they promise.

The bound is computed from the log-weights of the two traces, row by row and without Pyro's scales, by the same
functions that everything else here is. Needs the extra "pyro".
"""

# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, RenyiELBO
from torch import Tensor, nn

from vaebench.experiments.blackboxes.plates import (
    PARTICLES,
    plates_of,
    require_sites,
    require_whole,
    rows_of,
    sites_of,
    the_plate,
)
from vaebench.experiments.blackboxes.protocol import STEP, Arrays, Claim
from vaebench.gradients import Objective
from vaebench.support.layers import explaining
from vaebench.support.repeatable import torch_seeded
from vaebench.support.texts import shown

Program = Callable[[Tensor], Any]


class PyroBox:
    """`elbo.loss_and_grads(model, guide, x)`, divided by the size of the data plate.

    Attributes:
        parameters: unconstrained values of Pyro's parameter store, by name.
        plate: name of the plate over the rows.
        whole: whether it takes all of them.
    """

    parameters: Arrays
    plate: str
    whole: bool

    def __init__(self, model: Program, guide: Program, elbo: ELBO, x: Tensor):
        """Run it once, so that Pyro knows its parameters; they stay in its global store."""
        self.model, self.guide, self.elbo = model, guide, elbo
        self.dtype = x.dtype
        self.sizes: dict[int, int] = {}
        drawn, made = self._traces(x)
        require_sites(sites_of(_nodes(made)), sites_of(_nodes(drawn)))
        self.plate = the_plate(sites_of(_nodes(made)) + sites_of(_nodes(drawn)), len(x))
        taken = next(site.plates[self.plate][1] for site in sites_of(_nodes(made)))
        self.whole = require_whole(taken, len(x), elbo.alpha if isinstance(elbo, RenyiELBO) else 1.0)
        self.parameters = {name: value.detach().numpy().copy() for name, value in _leaves().items()}

    def _traces(self, x: Tensor) -> tuple[Any, Any]:
        with torch.random.fork_rng(devices=[]), poutine.block():
            drawn = poutine.trace(self.guide).get_trace(x)
            return drawn, poutine.trace(poutine.replay(self.model, drawn)).get_trace(x)

    def _rows(self, x: Tensor) -> int:
        """The full size of the plate over the rows, over which Pyro sums."""
        if len(x) not in self.sizes:
            nodes = self._traces(x)[1].nodes
            self.sizes[len(x)] = nodes[self.plate]["fn"].size if self.plate in nodes else len(x)
        return self.sizes[len(x)]

    def backward(self, x: Tensor) -> float:
        """Leave in Pyro's parameters the gradients that it computes, divided by the rows of the data plate.

        Torch's generator is drawn from as it is.

        Returns:
            The loss, divided likewise.
        """
        rows = self._rows(x)
        value = cast(Any, self.elbo).loss_and_grads(self.model, self.guide, x)
        for leaf in _leaves().values():
            if leaf.grad is not None:
                leaf.grad /= rows
        return float(value) / rows

    def value_and_gradient(self, parameters: Arrays, x: np.ndarray, seed: int) -> tuple[float, Arrays]:
        """The loss that Pyro reports and the gradients that it leaves, a row of the data."""
        leaves = _at(parameters)
        with torch_seeded(seed):
            value = self.backward(torch.tensor(x, dtype=self.dtype))
        found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in leaves.items()}
        for leaf in leaves.values():
            leaf.grad = None
        return value, {name: gradient.detach().numpy() for name, gradient in found.items()}


class TraceBox:
    """The bound of the log-weights of a guide's and a model's traces; a score-function term where z has no path.

    Attributes:
        parameters: as those of `PyroBox`.
    """

    parameters: Arrays

    def __init__(self, box: PyroBox, objective: Objective):
        """Of the programs of a box."""
        self.box, self.objective, self.parameters = box, objective, box.parameters

    def value_and_gradient(self, parameters: Arrays, x: np.ndarray, seed: int) -> tuple[float, Arrays]:
        """Minus the bound, averaged over the rows."""
        leaves, rows = _at(parameters), torch.tensor(x, dtype=self.box.dtype)
        with torch_seeded(seed):
            log_w, score = self._log_weights(rows)
        bound = self.objective.bound(log_w)
        surrogate = -(bound + (bound.detach() * score).sum(0)).mean()
        found = torch.autograd.grad(surrogate, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return -float(bound.detach().mean()), {n: g.numpy() for n, g in zip(leaves, found, strict=True)}

    def _log_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x|z) + beta (log p(z) - log q(z|x)), and log q of the latents that have no path, (K, B) each."""
        k, nesting = self.objective.samples, self.box.elbo.max_plate_nesting
        if not self.box.elbo.vectorize_particles or nesting != 1:
            pairs = [self._traced(x, self.box.guide, self.box.model, 1) for _ in range(k)]
            log_w, score = (torch.cat(part) for part in zip(*pairs, strict=True))
            return log_w, score
        particles = pyro.plate(PARTICLES, k, dim=-2)
        return self._traced(x, particles(self.box.guide), particles(self.box.model), k)

    def _traced(self, x: Tensor, guide: Program, model: Program, k: int) -> tuple[Tensor, Tensor]:
        drawn = poutine.trace(guide).get_trace(x)
        made = poutine.trace(poutine.replay(model, drawn)).get_trace(x)
        for trace in (drawn, made):
            trace.compute_log_prob()
        likelihood, prior, posterior, blind = [], [], [], []
        for site, found in self._by_row(made, k):
            (likelihood if site["is_observed"] else prior).append(found)
        for site, found in self._by_row(drawn, k):
            posterior.append(found)
            blind += [] if getattr(site["fn"], "has_rsample", False) else [found]
        nothing = torch.zeros_like(posterior[0])
        total, p, q, score = (sum(part, nothing) for part in (likelihood, prior, posterior, blind))
        return total + self.objective.beta * (p - q), score

    def _by_row(self, trace: Any, k: int) -> list[tuple[Mapping[str, Any], Tensor]]:
        """Sites with their log-probabilities, (K, rows of the plate) each."""
        found = []
        for site in _nodes(trace):
            summed = rows_of(site["name"], site["unscaled_log_prob"], plates_of(site), self.box.plate)
            found.append((site, summed.reshape(-1, summed.shape[-1]).expand(k, -1)))
        return found


def _nodes(trace: Any) -> list[dict[str, Any]]:
    """The sample sites, subsamples of plates aside."""
    return [s for s in trace.nodes.values() if s["type"] == "sample" and not poutine.util.site_is_subsample(s)]


def _leaves() -> dict[str, Tensor]:
    return dict(pyro.get_param_store().named_parameters())


def _at(parameters: Arrays) -> dict[str, Tensor]:
    leaves = _leaves()
    with torch.no_grad():
        for name, leaf in leaves.items():
            leaf.copy_(torch.tensor(parameters[name], dtype=leaf.dtype))
            leaf.grad = None
    return leaves


def from_pyro(model: Program, guide: Program, elbo: ELBO, x: Tensor) -> Claim:
    """A Pyro program as a black box beside the bound that it promises.

    The ELBO object says which: `RenyiELBO` the VR-IWAE bound of its alpha, every other the ELBO, with as many samples
    as it has particles.

    Args:
        model: of one argument, the rows x (B, *event), with a plate over them in which every site is.
        guide: likewise, of the same latents, all of them drawn.
        elbo: for example `RenyiELBO(alpha=0, num_particles=5)`.
        x: some rows.

    Returns:
        The box and the trusted one.

    Raises:
        ValueError: if no log-weight by row can be made of the programs' traces.
    """
    if not isinstance(elbo, ELBO):
        raise ValueError(f"The third thing that make returns must be an ELBO object of Pyro, got {shown(elbo)}.")
    alpha = float(elbo.alpha) if isinstance(elbo, RenyiELBO) else 1.0
    with explaining(nn.Module(), "The Pyro program"):
        box = PyroBox(model, guide, elbo, x)
    objective = Objective(int(elbo.num_particles), alpha)
    trusted, heavier = (TraceBox(box, replace(objective, beta=beta)) for beta in (1.0, 1.0 + STEP))
    return Claim(box, trusted, objective, heavier=heavier, beside="vaebench's bound of the traces", whole=box.whole)
