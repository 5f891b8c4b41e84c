"""Recorded functions in fewer operations: what is always the same is made once, what does nothing is left out."""

from typing import Any

import torch
from torch import Tensor, fx

VIEWS = {"view", "_unsafe_view", "expand", "detach", "alias"}  # idle where the layout stays
UNITS = {"mul", "div", "pow"}  # idle with 1, in every bit
MADE = {"new_full", "new_zeros", "new_ones", "full_like", "zeros_like", "ones_like"}  # of a tensor's layout alone


def simplified(record: fx.GraphModule) -> fx.GraphModule:
    """The same function in fewer operations, bit for bit.

    A view that changes no layout is left out, and what nothing uses. So is a product, quotient or power with 1, and
    what depends on no input is made here, once; but not where an operation works in place, on what may be either.

    Args:
        record: of operations on tensors of fixed layouts, each with an example of its result in `meta["val"]`.

    Returns:
        The function. Its results may share memory with each other, with inputs and with what was made here: copy them.
    """
    calls = [node for node in record.graph.nodes if node.op == "call_function"]
    pure = not any(_name(node).endswith("_") for node in calls)
    graph, fixed, copies = fx.Graph(), {}, {}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.get_attr(node.name)
        return copies[node]

    for node in record.graph.nodes:
        if node.op == "get_attr":
            fixed[node] = getattr(record, str(node.target))
        elif node.op == "call_function" and pure and _same_always(node, fixed):
            fixed[node] = _result(node, fixed)
        elif node.op == "call_function" and _idle(node, VIEWS | UNITS if pure else VIEWS):
            copies[node] = copied(node.args[0])
        else:
            copies[node] = graph.node_copy(node, copied)
    graph.eliminate_dead_code()
    return fx.GraphModule({node.name: value for node, value in fixed.items()}, graph)


def _name(node: fx.Node) -> str:
    """Such as "mul", of torch.ops.aten.mul.Tensor."""
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _same_always(node: fx.Node, fixed: dict[fx.Node, Tensor]) -> bool:
    inputs = node.all_input_nodes
    return all(one in fixed for one in inputs) or (_name(node) in MADE and inputs == [node.args[0]])


def _result(node: fx.Node, fixed: dict[fx.Node, Tensor]) -> Tensor:
    """Of an operation that depends on no input but for its layout."""

    def value(one: fx.Node) -> Any:
        shape, strides, dtype, device = _layout(one.meta["val"])
        return fixed[one] if one in fixed else torch.empty_strided(shape, strides, dtype=dtype, device=device)

    return node.target(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))  # pyright: ignore[reportCallIssue]


def _idle(node: fx.Node, names: set[str]) -> bool:
    before = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], fx.Node) else None
    if _name(node) not in names or not isinstance(before, Tensor) or _layout(before) != _layout(node.meta["val"]):
        return False
    return _name(node) in VIEWS or (node.args[1:] in ((1,), (1.0,)) and not node.kwargs)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device
