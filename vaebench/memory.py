"""Memory flat in B and K: drivers around estimators, with the gradients of the undivided ones.

`micro_batched` divides the batch. It is exact for every estimator, costs no additional pass and is the first choice.
`chunked` divides the samples of each example, where even one example's do not fit, for one more forward pass.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vjp

from vaebench.checks import positive_integer
from vaebench.distributions import Gaussian
from vaebench.estimators import Estimator, doubly_reparameterized, pathwise
from vaebench.models import LatentModel
from vaebench.objectives import Objective

DECODED = 2**21  # numbers in the decoded rows of a micro-batch that suit a CPU's caches: 682 of 3 x 32 x 32 pixels

Named = Mapping[str, Tensor]
Function = Callable[[Named, Tensor, Tensor], Tensor]
Differentiator = Callable[[Named, Tensor, Tensor], tuple[dict[str, Tensor], Tensor]]


def micro_batched(
    function: Function, size: int | None = None, gradient: Callable[[Function], Differentiator] = grad_and_value
) -> Differentiator:
    """Gradient and value of a mean over the batch, by parts of the batch; each example keeps its K samples.

    Args:
        function: (parameters, x, noise) -> loss, a mean over the examples, as of `vaebench.moments.loss_function`.
        size: examples at once; default those of 2^21 decoded numbers, or fewer if the batch then has equal parts.
        gradient: of one part; `vaebench.compilation.gradient` compiles it.

    Returns:
        (parameters, x (B, *event), noise (K, B, D)) -> gradients by name and the value; it may be vmapped.
    """
    size = None if size is None else positive_integer("size", size)
    one = gradient(function)

    def whole(parameters: Named, x: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        step = size or _even(len(x), max(1, DECODED // max(1, len(noise) * x[0].numel())))
        if step >= len(x):
            return one(parameters, x, noise)
        total: dict[str, Tensor] = {}
        value = x.new_zeros(())
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            found, part = one(parameters, x[rows], noise[:, rows])
            share = len(x[rows]) / len(x)
            total = {name: share * g + total[name] if total else share * g for name, g in found.items()}
            value = value + share * part
        return total, value

    return whole


def _even(rows: int, most: int) -> int:
    """A divisor of the rows, at most `most` and more than half of it; `most` where there is none."""
    return next((size for size in range(most, most // 2, -1) if rows % size == 0), most)


def chunked(estimator: Estimator, size: int) -> Estimator:
    """An estimator's gradient by chunks of its samples: memory of one chunk, whatever K.

    The first pass, without gradients, gives the log-weights, hence the normalised weights w. The second differentiates
    sum_k w_k log w_k chunk by chunk, w given: the gradient of the bound. The encoder runs once, forward and backward.

    Args:
        estimator: `pathwise` or `doubly_reparameterized`, at any alpha and beta.
        size: samples at once.

    Returns:
        The estimator. It may be vmapped and trained in a fleet; it is differentiable once.

    Raises:
        ValueError: if the estimator is another.
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
        task = _Task(_Weighted(model), names, objective, estimator is pathwise, size)
        return _Chunked.apply(task, x, noise, q.mean, q.log_std, *tensors)[0]  # pyright: ignore[reportOptionalSubscript]

    return surrogate


class _Weighted(nn.Module):
    """log w of one chunk under the names "model.<name>", with the gradients that the estimator lets through."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor, q: Gaussian, objective: Objective, damping: Tensor | None) -> Tensor:
        z = q.transport(noise)
        if damping is not None:
            z, q = z.detach() + damping * (z - z.detach()), q.detach()
        return objective.log_weights(self.model, x, z, q)  # pyright: ignore[reportArgumentType]


class _Task(NamedTuple):
    """What does not depend on tensors."""

    module: _Weighted
    names: tuple[str, ...]
    objective: Objective
    plain: bool
    size: int

    def log_weights(
        self, x: Tensor, noise: Tensor, mean: Tensor, log_std: Tensor, tensors: tuple[Tensor, ...], w: Tensor | None
    ) -> Tensor:
        """(k, B) of one chunk; w (k, B) are its normalised weights, if the path's gradient is damped by them."""
        named = {f"model.{name}": tensor for name, tensor in zip(self.names, tensors, strict=True)}
        damping = None
        if w is not None and not self.plain:
            damping = (1 - self.objective.beta * (1 - self.objective.alpha) * (1 - w)).unsqueeze(-1)
        return functional_call(self.module, named, (x, noise, Gaussian(mean, log_std), self.objective, damping))


class _Chunked(torch.autograd.Function):
    """Forward: the bound and the weights, (B,) and (K, B). Backward: the weighted sum, chunk by chunk."""

    generate_vmap_rule = True

    @staticmethod
    def forward(task: _Task, x: Tensor, noise: Tensor, mean: Tensor, log_std: Tensor, *tensors: Tensor) -> Any:
        chunks = [task.log_weights(x, part, mean, log_std, tensors, None) for part in noise.split(task.size)]
        log_w = torch.cat(chunks)
        return task.objective.bound(log_w), task.objective.weights(log_w)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.task, *tensors = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], *tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        weights, x, noise, mean, log_std, *tensors = ctx.saved_tensors
        total: tuple[Tensor, ...] = ()
        parts = zip(noise.split(ctx.task.size), weights.split(ctx.task.size), strict=True)
        with torch.no_grad():  # torch.func differentiates with create_graph, which would keep every chunk's graph
            for part, w in parts:
                found = _pulled(ctx.task, x, part, w, upstream[0], (mean, log_std, *tensors))
                total = tuple(map(torch.add, total, found)) if total else found
        return None, None, None, *total


def _pulled(
    task: _Task, x: Tensor, noise: Tensor, w: Tensor, upstream: Tensor, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The gradient of one chunk; its graph ends with this call."""

    def log_weights(mean: Tensor, log_std: Tensor, *tensors: Tensor) -> Tensor:
        return task.log_weights(x, noise, mean, log_std, tensors, w)

    return vjp(log_weights, *inputs)[1](w * upstream)
