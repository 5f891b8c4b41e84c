"""NumPyro's estimators on our nets, carried over to JAX layer by layer with the same parameters."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import torch
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.elbo import ELBO
from torch import Tensor, nn

from benchmarks.peers.steps import Adapter, Backward, Contestant, Step
from vaebench.experiments.blackboxes import BlackBox
from vaebench.experiments.blackboxes.from_numpyro import from_numpyro
from vaebench.gradients.objectives import Objective
from vaebench.models import VAE
from vaebench.models.activations import SoftClip
from vaebench.models.distributions import Bernoulli

NAME, VERSION = "numpyro", numpyro.__version__
Parameters = dict[str, jax.Array]
Net = Callable[[Parameters, jax.Array], jax.Array]


def to_jax(tensor: Tensor) -> jax.Array:
    """A copy, in the same precision."""
    with jax.enable_x64(tensor.dtype == torch.float64):
        return jnp.array(tensor.detach().numpy())


def soft_clip(x: jax.Array, layer: SoftClip) -> jax.Array:
    """Generalised soft clipping."""
    s, low, high = layer.sharpness, layer.low, layer.high
    return low + (jax.nn.softplus(s * (x - low)) - jax.nn.softplus(s * (x - high))) / s


def convolution(layer: nn.Conv2d | nn.ConvTranspose2d, weight: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    """A convolution of (N, C, H, W), or its transpose."""
    stride, (pad, _), kernel = layer.stride, layer.padding, layer.kernel_size[0]
    if isinstance(layer, nn.Conv2d):
        y = jax.lax.conv_general_dilated(x, weight, stride, [(pad, pad)] * 2)
    else:
        edge, flipped = kernel - 1 - pad, weight[:, :, ::-1, ::-1].swapaxes(0, 1)
        y = jax.lax.conv_general_dilated(x, flipped, (1, 1), [(edge, edge)] * 2, lhs_dilation=stride)
    return y + bias[:, None, None]


def net(module: nn.Module, prefix: str) -> Net:
    """A torch net of linear layers, convolutions and activations as a function of its parameters."""
    layers = [
        (name, layer)
        for name, layer in module.named_modules(remove_duplicate=False)
        if not isinstance(layer, nn.Sequential)
    ]

    def apply(parameters: Parameters, x: jax.Array) -> jax.Array:
        for name, layer in layers:
            if isinstance(layer, nn.Linear):
                x = x @ parameters[f"{prefix}.{name}.weight"].T + parameters[f"{prefix}.{name}.bias"]
            elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                path = f"{prefix}.{name}"
                x = convolution(layer, parameters[f"{path}.weight"], parameters[f"{path}.bias"], x)
            else:
                x = activation(layer, x)
        return x

    return apply


def activation(layer: nn.Module, x: jax.Array) -> jax.Array:
    """A layer without parameters."""
    if isinstance(layer, SoftClip):
        return soft_clip(x, layer)
    if isinstance(layer, nn.Flatten):
        return x.reshape(len(x), -1)
    if isinstance(layer, nn.Unflatten):
        return x.reshape(len(x), *layer.unflattened_size)
    return {nn.Tanh: jnp.tanh, nn.ReLU: jax.nn.relu, nn.Identity: lambda y: y}[type(layer)](x)


def programs(model: VAE, scale: int = 1):
    """Model and guide; the batch is taken to be 1/scale of the data set."""
    encoder, decoder, latents = net(model.encoder, "encoder"), net(model.decoder, "decoder"), model.latents
    start = {name: to_jax(parameter) for name, parameter in model.named_parameters()}
    bernoulli = model.head is Bernoulli
    std = 1.0 if bernoulli else float(model.head(torch.zeros(1, 1, 1)).log_std.exp())

    def owned(block: str) -> Parameters:
        return {name: numpyro.param(name, start[name]) for name in start if name.startswith(block)}

    def rows(x: jax.Array) -> numpyro.plate:
        return numpyro.plate("data", scale * len(x), subsample_size=len(x))

    def generate(x: jax.Array) -> None:
        parameters = owned("decoder")
        with rows(x):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latents, x.dtype), 1).to_event(1))
            y = decoder(parameters, z)
            family = dist.Bernoulli(logits=y) if bernoulli else dist.Normal(y, std)
            numpyro.sample("x", family.to_event(x.ndim - 1), obs=x)

    def guide(x: jax.Array) -> None:
        mean, log_variance = jnp.split(encoder(owned("encoder"), x), 2, -1)
        mean, log_variance = activation(model.mean, mean), activation(model.log_variance, log_variance)
        with rows(x):
            numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_variance)).to_event(1))

    return generate, guide, start


def elbo(estimator: type[ELBO], objective: Objective) -> ELBO:
    """The estimator with K particles at once."""
    options = {"alpha": objective.alpha} if estimator is RenyiELBO else {}
    return estimator(num_particles=objective.samples, **options)


def adapter(estimator: type[ELBO], scale: int = 1) -> Adapter:
    """An estimator as an adapter, by the box that `vaebench certify --numpyro` judges."""

    def build(model: VAE, objective: Objective) -> Backward:
        generate, guide, _ = programs(model, scale)
        boxes: list[BlackBox] = []

        def backward(x: Tensor) -> float:
            if not boxes:
                boxes.append(from_numpyro(generate, guide, elbo(estimator, objective), x.numpy()).box)
            now = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
            value, found = boxes[0].value_and_gradient(now, x.numpy(), int(torch.randint(2**31, ())))
            for name, parameter in model.named_parameters():
                parameter.grad = torch.from_numpy(np.array(found[name]))
            return value

        return backward

    return build


def stepper(estimator: type[ELBO]):
    """A compiled step as NumPyro's documentation has it: SVI's update with its Adam."""

    def make(model: VAE, objective: Objective, lr: float) -> Step:
        generate, guide, _ = programs(model)
        svi = SVI(generate, guide, numpyro.optim.Adam(lr), elbo(estimator, objective))
        update, state, batch = jax.jit(svi.update), None, None

        def step(x: Tensor) -> float:
            nonlocal state, batch
            if state is None:  # the first batch is that of every step: moving it to JAX is not timed
                batch = to_jax(x)
                state = svi.init(jax.random.key(0), batch)
            state, value = update(state, batch)
            return float(value)

        return step

    return make


ADAPTERS = {
    "Trace_ELBO": adapter(Trace_ELBO),
    "TraceMeanField_ELBO": adapter(TraceMeanField_ELBO),
    "RenyiELBO": adapter(RenyiELBO),
    "RenyiELBO, half of the data": adapter(RenyiELBO, scale=2),
}
CONTESTANTS = [
    Contestant("numpyro Trace_ELBO", stepper(Trace_ELBO), ("ELBO",)),
    Contestant("numpyro TraceMeanField_ELBO", stepper(TraceMeanField_ELBO), ("ELBO",)),
    Contestant("numpyro RenyiELBO", stepper(RenyiELBO), ("IWAE",)),
]
