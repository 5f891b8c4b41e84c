"""Pyro's estimators on our nets, one example a row of a plate, as in Pyro's own VAE example.

Pyro keeps parameters in one global store: build an adapter, use it, and only then build the next.
"""

import pyro
import pyro.distributions as dist
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import ELBO, SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

from benchmarks.peers.steps import Adapter, Backward, Contestant, Step
from vaebench.experiments.blackboxes.from_pyro import PyroBox
from vaebench.gradients.objectives import Objective
from vaebench.models import VAE
from vaebench.models.distributions import Bernoulli

NAME, VERSION = "pyro", pyro.__version__


def likelihood(model: VAE, z: Tensor) -> dist.Distribution:
    """p(x|z) as a Pyro distribution, from z (..., D)."""
    head = model.head(model.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1]))
    event = head.mean.ndim - z.ndim + 1
    if isinstance(head, Bernoulli):
        return dist.Bernoulli(logits=head.logits).to_event(event)
    return dist.Normal(head.mean, head.log_std.exp()).to_event(event)


def programs(model: VAE, scale: int = 1, normal: type[dist.Normal] = dist.Normal):
    """Model and guide; the batch is taken to be 1/scale of the data set."""
    pyro.clear_param_store()

    def rows(x: Tensor) -> pyro.plate:
        return pyro.plate("data", len(x)) if scale == 1 else pyro.plate("data", scale * len(x), subsample_size=len(x))

    def generate(x: Tensor) -> None:
        pyro.module("decoder", model.decoder)
        with rows(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(model.latents), 1).to_event(1))
            pyro.sample("x", likelihood(model, z), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", model.encoder)
        q = model.posterior(x)
        with rows(x):
            pyro.sample("z", normal(q.mean, q.log_std.exp()).to_event(1))

    return generate, guide


def elbo(estimator: type[ELBO], objective: Objective) -> ELBO:
    """The estimator with K particles at once."""
    options = {"alpha": objective.alpha} if estimator is RenyiELBO else {}
    return estimator(num_particles=objective.samples, vectorize_particles=True, max_plate_nesting=1, **options)


def adapter(estimator: type[ELBO], scale: int = 1, normal: type[dist.Normal] = dist.Normal) -> Adapter:
    """An estimator as an adapter, by the box that `vaebench certify --pyro` judges."""

    def build(model: VAE, objective: Objective) -> Backward:
        generate, guide = programs(model, scale, normal)
        boxes: list[PyroBox] = []

        def backward(x: Tensor) -> float:
            if not boxes:
                boxes.append(PyroBox(generate, guide, elbo(estimator, objective), x))
            return boxes[0].backward(x)

        return backward

    return build


def stepper(estimator: type[ELBO]):
    """A step as Pyro's documentation has it: SVI with Pyro's Adam, and without the checks of arguments."""

    def make(model: VAE, objective: Objective, lr: float) -> Step:
        pyro.enable_validation(False)
        return SVI(*programs(model), pyro.optim.Adam({"lr": lr}), elbo(estimator, objective)).step

    return make


ADAPTERS = {
    "Trace_ELBO": adapter(Trace_ELBO),
    "Trace_ELBO, guide without rsample": adapter(Trace_ELBO, normal=NonreparameterizedNormal),
    "Trace_ELBO, half of the data": adapter(Trace_ELBO, scale=2),
    "TraceMeanField_ELBO": adapter(TraceMeanField_ELBO),
    "RenyiELBO": adapter(RenyiELBO),
    "RenyiELBO, guide without rsample": adapter(RenyiELBO, normal=NonreparameterizedNormal),
    "RenyiELBO, half of the data": adapter(RenyiELBO, scale=2),
}
CONTESTANTS = [
    Contestant("pyro Trace_ELBO", stepper(Trace_ELBO), ("ELBO",)),
    Contestant("pyro TraceMeanField_ELBO", stepper(TraceMeanField_ELBO), ("ELBO",)),
    Contestant("pyro RenyiELBO", stepper(RenyiELBO), ("IWAE",)),
]
