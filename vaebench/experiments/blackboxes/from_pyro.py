"""Pyro: a model, a guide and an ELBO object as a black box, and beside it the bound that they promise.

The bound is computed from the log-weights of the two traces, row by row and without Pyro's scales, by the same
functions that everything else here is. Needs the extra "pyro".
"""

# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, RenyiELBO
from torch import Tensor

from vaebench.experiments.blackboxes.protocol import Arrays, Claim
from vaebench.gradients import Objective
from vaebench.support.repeatable import torch_seeded

Program = Callable[[Tensor], Any]


class PyroBox:
    """`elbo.loss_and_grads(model, guide, x)`, divided by the size of the data plate.

    Attributes:
        parameters: unconstrained values of Pyro's parameter store, by name.
    """

    parameters: Arrays

    def __init__(self, model: Program, guide: Program, elbo: ELBO, x: Tensor):
        """Run it once, so that Pyro knows its parameters; they stay in its global store."""
        self.model, self.guide, self.elbo = model, guide, elbo
        self.dtype = x.dtype
        self.sizes: dict[int, int] = {}
        self._rows(x)
        self.parameters = {name: value.detach().numpy().copy() for name, value in _leaves().items()}

    def _rows(self, x: Tensor) -> int:
        """The size of the data plate for so many rows, over which Pyro sums."""
        if len(x) not in self.sizes:
            with torch.random.fork_rng(devices=[]), poutine.block():
                poutine.trace(self.guide).get_trace(x)
                trace: Any = poutine.trace(self.model).get_trace(x)
            draws = [s for s in trace.nodes.values() if s["type"] == "sample" and poutine.util.site_is_subsample(s)]
            self.sizes[len(x)] = max([site["fn"].size for site in draws], default=len(x))
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
        """log p(x, z) - log q(z|x), and log q of the latents that have no path, (K, B) each."""
        k, nesting = self.objective.samples, self.box.elbo.max_plate_nesting
        if not self.box.elbo.vectorize_particles or nesting != 1:
            pairs = [self._traced(x, self.box.guide, self.box.model, 1) for _ in range(k)]
            log_w, score = (torch.cat(part) for part in zip(*pairs, strict=True))
            return log_w, score
        particles = pyro.plate("particles of the bound", k, dim=-2)
        return self._traced(x, particles(self.box.guide), particles(self.box.model), k)

    def _traced(self, x: Tensor, guide: Program, model: Program, k: int) -> tuple[Tensor, Tensor]:
        drawn = poutine.trace(guide).get_trace(x)
        made = poutine.trace(poutine.replay(model, drawn)).get_trace(x)
        for trace in (drawn, made):
            trace.compute_log_prob()
        log_p, log_q = ([_by_row(site, k, len(x)) for site in _sites(trace)] for trace in (made, drawn))
        blind = [
            q for q, site in zip(log_q, _sites(drawn), strict=True) if not getattr(site["fn"], "has_rsample", False)
        ]
        nothing = torch.zeros(k, len(x), dtype=x.dtype)
        return sum(log_p, nothing) - sum(log_q, nothing), sum(blind, nothing)


def _sites(trace: Any) -> list[dict[str, Any]]:
    """The sample sites, subsamples of plates aside."""
    return [s for s in trace.nodes.values() if s["type"] == "sample" and not poutine.util.site_is_subsample(s)]


def _by_row(site: Mapping[str, Any], k: int, rows: int) -> Tensor:
    found = site["unscaled_log_prob"]
    if tuple(found.shape) not in {(rows,), (k, rows)}:
        raise ValueError(
            f"The site {site['name']!r} must be in one plate over the {rows} rows of x, with .to_event() for the "
            f"rest; its log-probability has shape {tuple(found.shape)}."
        )
    return found.expand(k, rows)


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
        model: of one argument, the rows x (B, *event), with one plate over them.
        guide: likewise; every latent in that plate.
        elbo: for example `RenyiELBO(alpha=0, num_particles=5)`.
        x: some rows.

    Returns:
        The box and the trusted one.
    """
    alpha = float(elbo.alpha) if isinstance(elbo, RenyiELBO) else 1.0
    box, objective = PyroBox(model, guide, elbo, x), Objective(int(elbo.num_particles), alpha)
    return Claim(box, TraceBox(box, objective), objective)
