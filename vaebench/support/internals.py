"""The names of torch that carry no promise to stay: all that vaebench uses, so that one module is to be mended."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import cast

import torch
from torch import Tensor, fx

from vaebench.support.simplifying import simplified

Flat = Callable[..., Sequence[Tensor]]
Build = Callable[[Flat, Sequence[Tensor]], Flat]
NAMES: Mapping[str, str] = {
    "torch.fx.experimental.proxy_tensor.make_fx": "records the operations that tensors go through, hooks included",
    "torch._inductor.compile": "makes machine code of such a record",
    "torch.jit.trace": "calls the operations of such a record from C++",
    "torch._C._are_functorch_transforms_active": "says whether vmap or grad of torch.func is at work",
}


def missing() -> list[str]:
    """A sentence for each of the names that this torch lacks."""
    return [
        f"torch {torch.__version__} has no {name}, which {use}; mend vaebench.support.internals."
        for name, use in NAMES.items()
        if not _has(name)
    ]


def _has(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def transforming() -> bool:
    """Whether a transform of `torch.func` is at work, under which tensors cannot become leaves."""
    return torch._C._are_functorch_transforms_active()  # pyright: ignore[reportAttributeAccessIssue]


def compile_flat(function: Flat, inputs: Sequence[Tensor]) -> Flat:
    """Machine code for a function of tensors, for inputs of these shapes, strides, dtypes and devices.

    Seconds, unless inductor finds the code on the disk, where it keeps it under a digest of the record.

    Args:
        function: (tensors) -> tensors; `recorded` says what is kept of it.
        inputs: examples.

    Returns:
        The same function of tensors laid out as the inputs are.
    """
    given = [tensor.detach() for tensor in inputs]
    # In C++, the calls between kernels take a fifth of a small net's step less.
    options = {"cpp_wrapper": True} if given[0].device.type == "cpu" else {}
    record = recorded(function, given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ways to multiply that torch 2.12 leaves out, and of complex numbers
        return cast(Flat, torch._inductor.compile(record, list(given), options))


def interpret_flat(function: Flat, inputs: Sequence[Tensor]) -> Flat:
    """A function's operations as they were recorded, called from C++ one after the other.

    It is ready after a fifth of a second, needs no compiler, and gives the function's results bit for bit. Small ones
    come several times faster, since Python, `torch.func` and autograd are gone.

    Args:
        function: (tensors) -> tensors; `recorded` says what is kept of it.
        inputs: examples.

    Returns:
        The same function of tensors laid out as the inputs are.
    """
    given = [tensor.detach() for tensor in inputs]
    record = simplified(recorded(function, given))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch would rather have compiled, and of results in a list
        traced = cast(Flat, torch.jit.trace(record, tuple(given), check_trace=False))

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        with torch.inference_mode():  # a seventh of the time is spent on asking whether autograd is at work
            found = traced(*tensors)
        return [tensor.clone() for tensor in found]  # tensors like any other, and no one else's memory

    return run


def recorded(function: Flat, given: Sequence[Tensor]) -> fx.GraphModule:
    """What a function does to tensors, as a graph.

    The function is run once on tensors without values; whatever it does to them, in hooks of a backward pass too, is
    in the record. An operation that asks for a value is an error.

    Args:
        function: (tensors) -> tensors.
        given: examples, without a graph.

    Returns:
        The graph, a module that is called as the function is.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.autograd.set_multithreading_enabled(False):  # what a backward pass does in other threads is not recorded
        return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*given)
