"""NumPyro: a model, a guide and an ELBO object as a black box, and beside it the bound that they promise.

As for Pyro, the bound is computed from the log-weights of the traces, row by row and without scales. Needs the extra
"numpyro".
"""

# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer import RenyiELBO, TraceEnum_ELBO
from numpyro.infer.elbo import ELBO
from torch import nn

from vaebench.experiments.blackboxes.plates import plates_of, require_sites, require_whole, rows_of, sites_of, the_plate
from vaebench.experiments.blackboxes.protocol import STEP, Arrays, Claim
from vaebench.gradients import Objective
from vaebench.support.layers import explaining
from vaebench.support.texts import shown

Program = Callable[[Any], Any]


class JaxBox:
    """A loss in JAX, compiled with its gradient.

    Attributes:
        parameters: by name.
    """

    parameters: Arrays

    def __init__(self, parameters: Arrays, loss: Callable[[Any, Any, Any], Any]):
        """Of (parameters, key, x) -> (loss, what is differentiated)."""
        self.parameters = parameters

        def surrogate(given: Any, key: Any, x: Any) -> Any:
            value, differentiated = loss(given, key, x)
            return differentiated, value

        self.both = jax.jit(jax.grad(surrogate, has_aux=True))

    def value_and_gradient(self, parameters: Arrays, x: np.ndarray, seed: int) -> tuple[float, Arrays]:
        """The loss and its gradient, in the precision of x."""
        with jax.enable_x64(x.dtype == np.float64):
            given = {name: jnp.asarray(value) for name, value in parameters.items()}
            found, value = self.both(given, jax.random.key(seed), jnp.asarray(x))
            return float(value), {name: np.asarray(found[name]) for name in parameters}


class Programs:
    """A model and a guide with the values of their parameters, which are unconstrained and numbers of one array each.

    Attributes:
        parameters: by name; the leaves of a net's tree, such as numpyro.module registers, have their place behind it.
        plate: name of the plate over the rows.
        whole: whether it takes all of them.
    """

    parameters: Arrays
    plate: str
    whole: bool

    def __init__(self, model: Program, guide: Program, x: np.ndarray, alpha: float):
        """Trace both on some rows."""
        self.model, self.guide = model, guide
        drawn = handlers.trace(handlers.seed(guide, 0)).get_trace(jnp.asarray(x))
        made = handlers.trace(handlers.replay(handlers.seed(model, 0), drawn)).get_trace(jnp.asarray(x))
        require_sites(sites_of(_nodes(made)), sites_of(_nodes(drawn)))
        self.plate = the_plate(sites_of(_nodes(made)) + sites_of(_nodes(drawn)), len(x))
        self.whole = require_whole(sites_of(_nodes(made))[0].plates[self.plate][1], len(x), alpha)
        known = {s["name"]: s for trace in (made, drawn) for s in trace.values() if s["type"] == "param"}
        self.transforms = {n: biject_to(s["kwargs"].get("constraint", constraints.real)) for n, s in known.items()}
        values = {name: s["value"] for name, s in known.items()}
        start = {name: self.transforms[name].inv(v) if _is_array(v) else v for name, v in values.items()}
        leaves, self.tree = jax.tree_util.tree_flatten_with_path(start)
        self.names = [str(path[0].key) + jax.tree_util.keystr(path[1:]) for path, _ in leaves]
        self.parameters = {name: np.asarray(leaf) for name, (_, leaf) in zip(self.names, leaves, strict=True)}

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the programs' parameters are, constrained and as trees."""
        made = self.tree.unflatten([given[name] for name in self.names])
        return {name: self.transforms[name](value) if _is_array(value) else value for name, value in made.items()}

    def log_weight(self, given: Any, key: Any, x: Any, beta: float) -> tuple[Any, Any]:
        """log p(x|z) + beta (log p(z) - log q(z|x)), and log q of the latents that have no path, (B,) each."""
        values = self.values(given)
        first, second = jax.random.split(key)
        drawn = handlers.trace(handlers.seed(handlers.substitute(self.guide, data=values), first)).get_trace(x)
        replayed = handlers.seed(handlers.replay(handlers.substitute(self.model, data=values), drawn), second)
        made = handlers.trace(replayed).get_trace(x)
        q, blind = self._sum(drawn, lambda s: True), self._sum(drawn, lambda s: not s["fn"].has_rsample)
        prior, likelihood = (self._sum(made, lambda s, seen=seen: s["is_observed"] == seen) for seen in (False, True))
        return likelihood + beta * (prior - q), blind

    def _sum(self, trace: Any, wanted: Callable[[Any], bool]) -> Any:
        found = [
            rows_of(s["name"], s["fn"].log_prob(s["value"]), plates_of(s), self.plate)
            for s in _nodes(trace)
            if wanted(s)
        ]
        return sum(found, jnp.zeros(()))

    def rows(self, key: Any, given: Any, x: Any) -> int:
        """The full size of the plate over the rows, over which NumPyro sums."""
        values = self.values(given)
        trace = handlers.trace(handlers.seed(handlers.substitute(self.model, data=values), key)).get_trace(x)
        return trace[self.plate]["args"][0]


def _is_array(value: Any) -> bool:
    return jax.tree_util.all_leaves([value])


def _nodes(trace: Any) -> list[Any]:
    return [site for site in trace.values() if site["type"] == "sample"]


def from_numpyro(model: Program, guide: Program, elbo: ELBO, x: np.ndarray) -> Claim:
    """A NumPyro program as a black box beside the bound that it promises.

    Args:
        model: of one argument, the rows x (B, *event), with a plate over them in which every site is.
        guide: likewise, of the same latents, all of them drawn.
        elbo: `RenyiELBO` for the VR-IWAE bound of its alpha, every other for the ELBO, with its particles as samples.
        x: some rows.

    Returns:
        The box and the trusted one.

    Raises:
        ValueError: if no log-weight by row can be made of the programs' traces.
    """
    if not isinstance(elbo, ELBO) or isinstance(elbo, TraceEnum_ELBO):
        wanted = "an ELBO object of NumPyro without enumeration"
        raise ValueError(f"The third thing that make returns must be {wanted}, got {shown(elbo)}.")
    alpha = float(elbo.alpha) if isinstance(elbo, RenyiELBO) else 1.0
    objective = Objective(int(elbo.num_particles), alpha)
    with jax.enable_x64(x.dtype == np.float64), explaining(nn.Module(), "The NumPyro program"):
        programs = Programs(model, guide, x, alpha)

    def reported(given: Any, key: Any, batch: Any) -> Any:
        found: Any = elbo.loss(key, programs.values(given), model, guide, batch)
        loss = found / programs.rows(key, given, batch)
        return loss, loss

    def promised(beta: float) -> Callable[[Any, Any, Any], Any]:
        def of(given: Any, key: Any, batch: Any) -> Any:
            keys = jax.random.split(key, objective.samples)
            log_w, blind = jax.vmap(lambda one: programs.log_weight(given, one, batch, beta))(keys)
            bound = _bound(log_w, alpha)
            score = jax.lax.stop_gradient(bound) * blind.sum(0) if blind.ndim > 1 else 0.0
            return -bound.mean(), -(bound + score).mean()

        return of

    box, *others = (JaxBox(programs.parameters, loss) for loss in (reported, promised(1.0), promised(1.0 + STEP)))
    beside = "vaebench's bound of the traces"
    return Claim(box, others[0], objective, heavier=others[1], beside=beside, whole=programs.whole)


def _bound(log_w: Any, alpha: float) -> Any:
    """The VR-IWAE bound of log-weights (K, B), by row."""
    if alpha == 1:
        return log_w.mean(0)
    return (jax.nn.logsumexp((1 - alpha) * log_w, 0) - np.log(len(log_w))) / (1 - alpha)
