"""Memory flat in B and K: drivers around estimators, with the gradients of the undivided ones.

`micro_batched` divides the batch: exact for every estimator, without an additional pass, the first choice. `chunked`
divides the samples of each example, where even one's do not fit, for one more forward pass of all chunks but one. Both
work under the transforms of `torch.func`. Outside of them ordinary autograd does the same in half the time and a third
of the memory: it frees a graph as it goes back, and makes none of the gradient.

A `Function` is a loss of (parameters, x (B, *event), noise (K, B, D)), a mean over the examples, as
`vaebench.gradients.loss.loss_function` makes it; a `Differentiator` gives gradients by name and the value, and may be
vmapped.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vjp

from vaebench.gradients.estimators import Estimator, doubly_reparameterized, pathwise
from vaebench.gradients.loss import Parameters, function_of_parameters
from vaebench.gradients.objectives import Objective
from vaebench.models import LatentModel
from vaebench.models.distributions import Gaussian
from vaebench.support.checks import positive_integer
from vaebench.support.internals import transforming

DECODED = 2**22  # numbers in the decoded rows of a micro-batch: 1,365 of 3 x 32 x 32 pixels, fewer are not faster

Function = Callable[[Parameters, Tensor, Tensor], Tensor]
Differentiator = Callable[[Parameters, Tensor, Tensor], tuple[Parameters, Tensor]]
Recorded = tuple[Tensor, list[Tensor]]


def gradient_and_value(function: Function) -> Differentiator:
    """`torch.func.grad_and_value`, by ordinary autograd where no transform is at work: once differentiable."""
    transformed = grad_and_value(function)

    def one(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        if transforming():
            return transformed(parameters, x, noise)

        def of(*tensors: Tensor) -> Tensor:
            return function(dict(zip(parameters, tensors, strict=True)), x, noise)

        value, leaves = _recorded(of, parameters.values())
        found = torch.autograd.grad(value, leaves, materialize_grads=True)
        return dict(zip(parameters, found, strict=True)), value.detach()

    return one


def micro_batched(
    function: Function, size: int | None = None, gradient: Callable[[Function], Differentiator] | None = None
) -> Differentiator:
    """Gradient and value of a mean over the batch, by parts of the batch; each example keeps its K samples.

    Returns:
        The differentiator, by the `gradient` of parts (default `gradient_and_value`) of `size` examples, or of as
        many as `examples_at_once` says.
    """
    size = None if size is None else positive_integer("size", size)
    one = (gradient or gradient_and_value)(function)

    def whole(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Parameters, Tensor]:
        at_once = examples_at_once(x, noise, size)
        return one(parameters, x, noise) if at_once >= len(x) else sum_of_parts(one, parameters, x, noise, at_once)

    return whole


def sum_of_parts(
    differentiate: Differentiator, parameters: Parameters, x: Tensor, noise: Tensor, size: int
) -> tuple[Parameters, Tensor]:
    """Gradients and values of a mean over the batch from those of its parts, each weighted with its share.

    Returns:
        Both, of x (..., B, *event) and noise (..., K, B, D) cut into parts of `size` examples.
    """
    total, value = {}, x.new_zeros(())
    axis, rows = noise.ndim - 3, noise.shape[-2]
    for part, draws in zip(x.split(size, axis), noise.split(size, -2), strict=True):
        share = part.shape[axis] / rows
        found, values = differentiate(parameters, part.contiguous(), draws.contiguous())
        total = {n: total[n].add_(g, alpha=share) if total else share * g for n, g in found.items()}
        value = value + share * values
    return total, value


def examples_at_once(x: Tensor, noise: Tensor, size: int | None = None) -> int:
    """Examples of a micro-batch: `size`, or those of 2^22 decoded numbers, or a divisor of B above half of these.

    Returns:
        Their number, at least B if the batch (B, *event), or that of all members, (S, B, *event), stays whole.
    """
    samples, rows = noise.shape[-3:-1]
    most = size or max(1, DECODED * rows // max(1, samples * x.numel()))
    if size or rows <= most:
        return most
    return next((divisor for divisor in range(most, most // 2, -1) if rows % divisor == 0), most)


def chunked(estimator: Estimator, size: int) -> Estimator:
    """An estimator's gradient by chunks of its samples: memory of one chunk and of (K, B) log-weights.

    The first pass, without gradients, gives the log-weights, hence the normalised weights w. The second differentiates
    sum_k w_k log w_k chunk by chunk, w given: the gradient of the bound. The encoder runs once, forward and backward,
    and the last chunk too: its graph waits for the weights, unless torch's transforms are at work.

    Returns:
        The estimator, `size` samples at once. It may be vmapped and trained in a fleet; it is differentiable once.

    Raises:
        ValueError: if the estimator is neither `pathwise` nor `doubly_reparameterized`.
    """
    size = positive_integer("size", size)
    if estimator not in (pathwise, doubly_reparameterized):
        raise ValueError(
            f"chunked takes pathwise or doubly_reparameterized, got {getattr(estimator, '__name__', estimator)}; "
            "use micro_batched, which is exact for every estimator."
        )

    def surrogate(model: LatentModel, x: Tensor, noise: Tensor, objective: Objective) -> Tensor:
        assert isinstance(model, nn.Module)
        names, tensors = zip(*model.named_parameters(), strict=True)
        q = model.posterior(x)
        task = _Task(function_of_parameters(_LogWeights(model)), names, objective, estimator is pathwise, size, [])
        keep = torch.is_grad_enabled() and not transforming()
        return _Chunked.apply(task, keep, x, noise, q.mean, q.log_std, *tensors)[0]  # pyright: ignore[reportOptionalSubscript]

    return surrogate


def _recorded(function: Callable[..., Tensor], inputs: Iterable[Tensor]) -> Recorded:
    """A function's output and the leaves of its graph, that stand for the inputs."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        return function(*leaves), leaves


def _pulled(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], upstream: Tensor, recorded: Recorded | None = None
) -> tuple[Tensor, ...]:
    """The gradient of <function(*inputs), upstream>, from its record if there is one; the graph ends with this call."""
    if transforming():
        return vjp(function, *inputs)[1](upstream)
    output, leaves = recorded or _recorded(function, inputs)
    return torch.autograd.grad(output, leaves, upstream, allow_unused=True)


class _LogWeights(nn.Module):
    """log w under the names "model.<name>"."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, objective: Objective, x: Tensor, z: Tensor, q: Gaussian) -> Tensor:
        return objective.log_weights(self.model, x, z, q)  # pyright: ignore[reportArgumentType]


class _Task(NamedTuple):
    """What does not depend on tensors, and what the first pass leaves to the second: the graph of the last chunk."""

    function: Callable[..., Tensor]
    names: tuple[str, ...]
    objective: Objective
    plain: bool
    size: int
    kept: list[Recorded]

    def log_weights(self, x: Tensor, z: Tensor, mean: Tensor, log_std: Tensor, *tensors: Tensor) -> Tensor:
        """(k, B) of one chunk's samples z, as the estimator has it: its q is frozen, or not."""
        named = {f"model.{name}": tensor for name, tensor in zip(self.names, tensors, strict=True)}
        q = Gaussian(mean, log_std)
        return self.function(named, self.objective, x, z, q if self.plain else q.detach())

    def damped(self, gradient: Tensor, w: Tensor) -> Tensor:
        """What reaches q of the samples' gradient, (k, B, D)."""
        if self.plain:
            return gradient
        return (1 - self.objective.beta * (1 - self.objective.alpha) * (1 - w)).unsqueeze(-1) * gradient


class _Chunked(torch.autograd.Function):
    """Forward: the bound and the weights, (B,) and (K, B). Backward: the weighted sum, chunk by chunk."""

    generate_vmap_rule = True

    @staticmethod
    def forward(task: _Task, keep: bool, x: Tensor, noise: Tensor, *tensors: Tensor) -> Any:
        parts, log_w = noise.split(task.size), []
        for number, part in enumerate(parts, 1):
            inputs = (_transported(part, *tensors[:2]), *tensors)
            if keep and number == len(parts):
                task.kept.append(_recorded(partial(task.log_weights, x), inputs))
                log_w.append(task.kept[0][0].detach())
            else:
                log_w.append(task.log_weights(x, *inputs))
        whole = torch.cat(log_w)
        return task.objective.bound(whole), task.objective.weights(whole)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.task, _, *tensors = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], *tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        weights, x, noise, *tensors = ctx.saved_tensors
        total: tuple[Tensor | None, ...] = ()
        parts = zip(noise.split(ctx.task.size), weights.split(ctx.task.size), strict=True)
        with torch.no_grad():  # torch.func differentiates with create_graph, which would keep every chunk's graph
            for part, w in reversed(list(parts)):
                found = _chunk(ctx.task, x, part, w, upstream[0], tensors)
                total = tuple(map(_added, total, found)) if total else found
        return None, None, None, None, *total


def _chunk(
    task: _Task, x: Tensor, noise: Tensor, w: Tensor, upstream: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradient of one chunk, of its mean, log_std and parameters."""
    recorded = task.kept.pop() if task.kept else None
    q = tensors[:2]
    inputs = (_transported(noise, *q), *tensors)
    path, mean, log_std, *rest = _pulled(partial(task.log_weights, x), inputs, w * upstream, recorded)
    by_mean, by_log_std = _pulled(partial(_transported, noise), q, task.damped(path, w))
    return _added(mean, by_mean), _added(log_std, by_log_std), *rest


def _added(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """The sum of two gradients, of which None is zero."""
    return more if total is None else total if more is None else total + more


def _transported(noise: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return Gaussian(mean, log_std).transport(noise)
