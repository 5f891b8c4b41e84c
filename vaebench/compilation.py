"""Compiled gradients: torch.compile around the whole of a gradient, never eager without a word, and checked once.

torch.compile leaves code that it has compiled for eight inputs to eager execution, code that it cannot trace too,
and drops hooks that it does not see. Here every shape of input has a code object of its own, a break in the graph is
an error, and the first gradient is compared with the eager one.
"""

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value

from vaebench.memory import Differentiator, Function, Named


def compiled(differentiate: Differentiator) -> Differentiator:
    """A gradient by torch.compile, one compilation for each layout of its inputs: seconds to a minute.

    Compile what is repeated: a micro-batch rather than the batch, `vmap` of a gradient for a fleet.

    Args:
        differentiate: (parameters, x, noise) -> gradients by name and values, such as
            `torch.func.grad_and_value` of `vaebench.moments.loss_function`. It must not draw random numbers, and what
            else it depends on must stay as it is at the first call: for a small net it takes a third of the time of
            a call to see that nothing changed, and is not looked for.

    Returns:
        The same function, to rounding, of tensors without a graph. On its first call with new layouts it raises a
        RuntimeError if torch.compile fails, as it does where there is no C++ compiler, or if a gradient differs
        from the eager one by more than rounding explains, which switches a share of ReLUs too.
    """
    ready: dict[tuple[Any, ...], Differentiator] = {}

    def run(parameters: Named, x: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        key = (*parameters, *((t.shape, t.stride(), t.dtype, t.device) for t in (x, noise, *parameters.values())))
        with torch.no_grad():
            if key not in ready:
                ready[key] = _checked(differentiate, parameters, x, noise)
            return ready[key](parameters, x, noise)

    return run


def gradient(function: Function) -> Differentiator:
    """Gradient and value of a loss by `torch.func.grad_and_value`, compiled.

    Args:
        function: (parameters, x, noise) -> loss, as of `vaebench.moments.loss_function`.

    Returns:
        (parameters, x (B, *event), noise (K, B, D)) -> gradients by name and the value.
    """
    return compiled(grad_and_value(function))


def _unguarded(guards: Sequence[object]) -> list[bool]:
    """No guard is kept: there is one compiled function for each layout of the inputs."""
    return [False] * len(guards)


def _options() -> dict[str, Any]:
    """Of torch.compile, whose own import takes a second and is put off until something is compiled."""
    from vaebench.products import Products, held_back

    return {"guard_filter_fn": _unguarded, "post_grad_custom_post_pass": Products(held_back())}


def _checked(differentiate: Differentiator, parameters: Named, x: Tensor, noise: Tensor) -> Differentiator:
    def whole(parameters: Named, x: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return differentiate(parameters, x, noise)

    # torch.compile counts recompilations by code object, and this closure's would be shared.
    own = FunctionType(whole.__code__.replace(), whole.__globals__, "whole", None, whole.__closure__)
    fast = torch.compile(own, fullgraph=True, dynamic=False, options=_options())
    try:
        found, _ = fast(parameters, x, noise)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise RuntimeError(f"torch.compile failed ({reason}); use the gradient without `compiled`.") from error
    expected, _ = differentiate(parameters, x, noise)
    rounding = torch.finfo(x.dtype).eps
    whole_norm = torch.stack([torch.linalg.vector_norm(g) for g in expected.values()]).norm()
    for name, g in expected.items():
        off, norm = torch.linalg.vector_norm(found[name] - g), torch.linalg.vector_norm(g)
        allowed = 4 * (rounding / 2) ** 0.5 * norm + 100 * rounding * whole_norm
        if not off <= allowed:
            raise RuntimeError(
                f"The compiled gradient of {name}, of norm {float(norm):.3g}, is off by {float(off):.3g}, allowed are "
                f"{float(allowed):.3g}: torch.compile lost a part of it; use the gradient without `compiled`."
            )
    return fast
