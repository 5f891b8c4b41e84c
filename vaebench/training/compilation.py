"""Compiled gradients and steps, by torch's inductor: never eager without a word, and checked once.

torch.compile leaves code that it has compiled for eight inputs to eager execution, code that it cannot trace too, drops
hooks that it does not see, knows no `torch.autograd.Function` under vmap, and asks at every call whether anything has
changed, which takes longer than a small gradient. Here a function is traced once for each layout of its inputs, as
tensors go through it: what depends on their values is an error, and the first result is compared with the eager one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import grad_and_value
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Optimizer

from vaebench.gradients.loss import Parameters
from vaebench.gradients.memory import Differentiator, Function, examples_at_once, micro_batched
from vaebench.models.elementary import tanh, traced
from vaebench.training.adam import FusedAdam, adam_update
from vaebench.training.steps import eager_step

Result = tuple[Parameters, Tensor]
Compiled = Callable[..., Result]


def compiled(differentiate: Differentiator) -> Differentiator:
    """A gradient by inductor, one compilation for each layout of its inputs: seconds to a minute.

    Compile what is repeated: a micro-batch rather than the batch, `vmap` of a gradient for a fleet.

    Args:
        differentiate: (parameters, x, noise) -> gradients by name and values, such as
            `torch.func.grad_and_value` of `loss_function`. It must not draw random numbers, and what
            else it depends on must stay as it is at the first call: changes are not looked for.

    Returns:
        The same function, to rounding, of tensors without a graph. On its first call with new layouts it raises a
        RuntimeError if compilation fails, as it does where there is no C++ compiler, or if a gradient differs
        from the eager one by more than rounding explains, which switches a share of ReLUs too.
    """
    ready: dict[tuple[Any, ...], Compiled] = {}

    def run(parameters: Parameters, x: Tensor, noise: Tensor) -> Result:
        key = _layout(parameters, x, noise)
        with torch.no_grad():
            if key not in ready:
                fast = _compile(differentiate, parameters, x, noise)
                _compare_results(fast(parameters, x, noise), differentiate(parameters, x, noise))
                ready[key] = fast
            return ready[key](parameters, x, noise)

    return run


def gradient(function: Function) -> Differentiator:
    """Gradient and value of a loss by `torch.func.grad_and_value`, compiled.

    Args:
        function: (parameters, x, noise) -> loss, as of `vaebench.gradients.loss.loss_function`.

    Returns:
        (parameters, x (B, *event), noise (K, B, D)) -> gradients by name and the value.
    """
    return compiled(grad_and_value(function))


def compiled_step(differentiate: Differentiator, optimizer: Optimizer) -> Differentiator:
    """A step of training: the compiled gradient, with Adam's update in the same function if that is `fused_adam`.

    Between a gradient and an optimizer, Python takes a fifth of the time of a step of a small net, and a third where
    the processor's caches have held something else meanwhile.

    Args:
        differentiate: as of `compiled`.
        optimizer: of the same parameters; step sizes are read at every step. Others than `fused_adam` are called.

    Returns:
        (parameters, x, noise) -> gradients by name and values, as they were before the parameters were updated; it
        raises what `compiled` does, then leaves the parameters alone, and a ValueError if the parameters are not
        all of the optimizer's, in its order, or have taken different numbers of steps.
    """
    if not isinstance(optimizer, FusedAdam):
        return eager_step(compiled(differentiate), optimizer)
    ready: dict[tuple[Any, ...], Compiled] = {}

    def step(parameters: Parameters, x: Tensor, noise: Tensor) -> Result:
        moments, group = optimizer.begin_step(list(parameters.values())), optimizer.param_groups[0]
        betas, eps = group["betas"], group["eps"]
        key = (betas, eps, _layout(parameters, x, noise))
        with torch.no_grad():
            if key in ready:
                return ready[key](parameters, x, noise, *moments.state)
            try:
                update = partial(_update, betas=betas, eps=eps)
                ready[key], result = _first_step(differentiate, update, parameters, x, noise, *moments.state)
            except BaseException:
                moments.since -= 1
                raise
            return result

    return step


def training_step(function: Function, optimizer: Optimizer, size: int | None = None) -> Differentiator:
    """The fastest step of one net on a CPU: compiled, by micro-batches where the batch is large.

    Args:
        function: (parameters, x, noise) -> loss, a mean over the examples, as of `loss_function`.
        optimizer: of the same parameters, best `vaebench.training.optimizers.fused_adam`.
        size: of a micro-batch, as of `vaebench.gradients.memory.micro_batched`.

    Returns:
        As `compiled_step`.
    """
    whole = compiled_step(grad_and_value(function), optimizer)
    divided = eager_step(micro_batched(function, size, gradient), optimizer)

    def step(parameters: Parameters, x: Tensor, noise: Tensor) -> Result:
        undivided = examples_at_once(x, noise, size) >= x.shape[0]
        return (whole if undivided else divided)(parameters, x, noise)

    return step


def _layout(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Any, ...]:
    return (*parameters, *((t.shape, t.stride(), t.dtype, t.device) for t in (x, noise, *parameters.values())))


def _update(found: Parameters, parameters: Parameters, *state: Tensor, betas: tuple[float, float], eps: float) -> None:
    *moments, counter, rate, root = state
    counter.add_(1)
    means, squares = moments[: len(parameters)], moments[len(parameters) :]
    for (name, parameter), mean, square in zip(parameters.items(), means, squares, strict=True):
        adam_update(parameter, mean, square, found[name], rate, root, betas, eps)


def _first_step(
    differentiate: Differentiator,
    update: Callable[..., None],
    parameters: Parameters,
    x: Tensor,
    noise: Tensor,
    *state: Tensor,
) -> tuple[Compiled, Result]:
    """Compile and take the step, and compare with the eager one; what it wrote is taken back if that fails."""

    def whole(parameters: Parameters, x: Tensor, noise: Tensor, *state: Tensor) -> Result:
        found, values = differentiate(parameters, x, noise)
        update(found, parameters, *state)
        return found, values

    written = [*parameters.values(), *state[:-2]]
    before, eager = ([tensor.clone() for tensor in written] for _ in range(2))
    fast, expected = _compile(whole, parameters, x, noise, *state), differentiate(parameters, x, noise)
    try:
        result = fast(parameters, x, noise, *state)
        _compare_results(result, expected)
        size = len(parameters)
        update(result[0], dict(zip(parameters, eager[:size], strict=True)), *eager[size:], *state[-2:])
        for number, kind in enumerate(("step of", "change of the mean of", "change of the square of", "change of the")):
            part = slice(number * size, (number + 1) * size)
            moved, right = ([t - old for t, old in zip(s[part], before[part], strict=True)] for s in (written, eager))
            names = parameters if number < 3 else ["counter"]
            _compare(kind, dict(zip(names, moved, strict=True)), dict(zip(names, right, strict=True)))
    except BaseException:
        for tensor, old in zip(written, before, strict=True):
            tensor.copy_(old)
        raise
    return fast, result


def _compile(function: Compiled, parameters: Parameters, x: Tensor, *others: Tensor) -> Compiled:
    from vaebench.training import products  # imports inductor, which takes a second

    names, results, inputs = list(parameters), [], [t.detach() for t in (*parameters.values(), x, *others)]

    def flat(*tensors: Tensor) -> list[Tensor]:
        with traced():
            found, values = function(dict(zip(names, tensors, strict=False)), *tensors[len(names) :])
        results[:] = found
        return [*found.values(), values]

    try:
        graph = make_fx(flat, {torch.ops.aten.tanh.default: _tanh}, "fake", _allow_non_fake_inputs=True)(*inputs)
        # In C++, the calls between kernels take a fifth of a small net's step less.
        options = products.options() | {"cpp_wrapper": True} if x.device.type == "cpu" else {}
        fast = cast(Callable[..., list[Tensor]], torch._inductor.compile(graph, list(inputs), options))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise RuntimeError(f"Compilation failed ({reason}); use eager code.") from error

    def run(parameters: Parameters, *tensors: Tensor) -> Result:
        *found, values = fast(*parameters.values(), *tensors)
        return dict(zip(results, found, strict=True)), values

    return run


def _tanh(x: Tensor) -> Tensor:
    return tanh(x) if x.dtype == torch.float32 and x.device.type == "cpu" else NotImplemented


def _compare_results(found: Result, expected: Result) -> None:
    """Values are those of sums that may cancel: below 1, their errors are not relative."""
    _compare("gradient of", found[0], expected[0])
    _compare("value", *(dict(enumerate(torch.atleast_1d(values))) for _, values in (found, expected)), least=1)


def _compare(what: str, found: Mapping[Any, Tensor], expected: Mapping[Any, Tensor], least: float = 0) -> None:
    """Whether compiled tensors are the eager ones but for rounding, which switches a share of ReLUs too."""
    rounding = torch.finfo(next(iter(expected.values())).dtype).eps
    whole_norm = torch.stack([torch.linalg.vector_norm(g) for g in expected.values()]).norm()
    for name, g in expected.items():
        off, norm = torch.linalg.vector_norm(found[name] - g), torch.linalg.vector_norm(g)
        if not norm.isfinite():
            raise RuntimeError(
                f"The {what} {name} has norm {float(norm)}: there is nothing to compare compiled code with."
            )
        allowed = 4 * (rounding / 2) ** 0.5 * norm.clamp(least) + 100 * rounding * whole_norm
        if not off <= allowed:
            raise RuntimeError(
                f"The compiled {what} {name}, of norm {float(norm):.3g}, is off by {float(off):.3g}, allowed are "
                f"{float(allowed):.3g}: compilation lost a part of it; use eager code."
            )
