"""NumPyro: a model, a guide and an ELBO object as a black box, and beside it the bound that they promise.

As for Pyro, the bound is computed from the log-weights of the traces, row by row and without scales. Needs the extra
"numpyro".
"""

# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import RenyiELBO
from numpyro.infer.elbo import ELBO

from vaebench.experiments.blackboxes.protocol import Arrays, Claim
from vaebench.gradients import Objective

Program = Callable[[Any], Any]


class JaxBox:
    """A loss in JAX, compiled with its gradient.

    Attributes:
        parameters: by name.
    """

    parameters: Arrays

    def __init__(self, parameters: Arrays, loss: Callable[[Any, Any, Any], Any]):
        """Of (parameters, key, x) -> loss."""
        self.parameters = parameters
        self.both = jax.jit(jax.value_and_grad(loss))

    def value_and_gradient(self, parameters: Arrays, x: np.ndarray, seed: int) -> tuple[float, Arrays]:
        """The loss and its gradient, in the precision of x."""
        with jax.enable_x64(x.dtype == np.float64):
            given = {name: jnp.asarray(value) for name, value in parameters.items()}
            value, found = self.both(given, jax.random.key(seed), jnp.asarray(x))
            return float(value), {name: np.asarray(found[name]) for name in parameters}


def from_numpyro(model: Program, guide: Program, elbo: ELBO, x: np.ndarray) -> Claim:
    """A NumPyro program as a black box beside the bound that it promises.

    Args:
        model: of one argument, the rows x (B, *event), with one plate over them.
        guide: likewise; every latent in that plate, with a path to its parameters; unconstrained parameters.
        elbo: `RenyiELBO` for the VR-IWAE bound of its alpha, every other for the ELBO, with its particles as samples.
        x: some rows.

    Returns:
        The box and the trusted one.
    """
    alpha = float(elbo.alpha) if isinstance(elbo, RenyiELBO) else 1.0
    objective = Objective(int(elbo.num_particles), alpha)
    with jax.enable_x64(x.dtype == np.float64):
        traces = [handlers.trace(handlers.seed(one, 0)).get_trace(jnp.asarray(x)) for one in (guide, model)]
    sites = [site for trace in traces for site in trace.values()]
    parameters = {s["name"]: np.asarray(s["value"]) for s in sites if s["type"] == "param"}

    def reported(given: Any, key: Any, batch: Any) -> Any:
        found: Any = elbo.loss(key, given, model, guide, batch)
        trace = handlers.trace(handlers.seed(handlers.substitute(model, data=given), key)).get_trace(batch)
        sizes = [site["args"][0] for site in trace.values() if site["type"] == "plate"]
        rows = max(sizes, default=len(batch))  # of the plate, over which NumPyro sums
        return found / rows

    def log_weight(given: Any, key: Any, batch: Any) -> Any:
        first, second = jax.random.split(key)
        drawn = handlers.trace(handlers.seed(handlers.substitute(guide, data=given), first)).get_trace(batch)
        replayed = handlers.seed(handlers.replay(handlers.substitute(model, data=given), drawn), second)
        made = handlers.trace(replayed).get_trace(batch)
        return _log_prob(made, len(batch)) - _log_prob(drawn, len(batch))

    def promised(given: Any, key: Any, batch: Any) -> Any:
        keys = jax.random.split(key, objective.samples)
        log_w = jax.vmap(lambda one: log_weight(given, one, batch))(keys)
        if alpha == 1:
            return -log_w.mean()
        mean = jax.nn.logsumexp((1 - alpha) * log_w, 0) - np.log(objective.samples)
        return -mean.mean() / (1 - alpha)

    return Claim(JaxBox(parameters, reported), JaxBox(parameters, promised), objective)


def _log_prob(trace: Any, rows: int) -> Any:
    total = jnp.zeros(rows)
    for site in trace.values():
        if site["type"] == "sample":
            found = site["fn"].log_prob(site["value"])
            if found.shape != (rows,):
                raise ValueError(
                    f"The site {site['name']!r} must be in one plate over the {rows} rows of x, with .to_event() for "
                    f"the rest; its log-probability has shape {tuple(found.shape)}."
                )
            total += found
    return total
