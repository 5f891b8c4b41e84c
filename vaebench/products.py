"""Matrix products of compiled gradients: turned the quicker way round, and by oneDNN where MKL is held back.

Rows of a product are computed a vector at a time, so that a product of 5 columns wastes eleven lanes of sixteen, and
its transpose none. Measured on one core of an AMD EPYC with AVX-512: 32 products of 32 x 50 by 50 x 5 take 48 us, and
13 us turned round. On processors that are not Intel's, moreover, MKL's single-precision products stay with AVX2: 97 to
107 GFLOP/s for the layers of the 784-200-200-50 perceptron and batches of 100 and more, where oneDNN reaches 140 to
210. A call of oneDNN takes 10 us longer to begin, so small products are left to MKL.
"""

from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

LANES = 16  # float32 numbers in a vector
GAIN = 1.1  # times as many lanes wasted make a product worth turning
TURNED = 2**17  # multiply-adds that make it so
SMALLEST = 2**21  # multiply-adds from which oneDNN is worth calling; half as many take 20 us either way

_LIBRARY = torch.library.Library("vaebench", "DEF")
_LIBRARY.define("product(Tensor left, Tensor right, Tensor? bias) -> Tensor")


def _product(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """left (..., m, k) @ right (..., k, n) + bias (n,), with one leading axis at most."""
    if left.ndim == 3:
        return torch.stack([_product(*pair, bias) for pair in zip(left, right, strict=True)])
    return torch.ops.mkldnn._linear_pointwise(left, right.t(), bias, "none", [], "")


def _described(left: Tensor, right: Tensor, _: Tensor | None) -> Tensor:
    return left.new_empty(*left.shape[:-1], right.shape[-1])


_LIBRARY.impl("product", _product, "CPU")
_LIBRARY.impl("product", _described, "Meta")


@cache
def held_back() -> bool:
    """Whether MKL multiplies float32 matrices here with half of what the processor has."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    name = str(torch.cpu.get_capabilities().get("cpu_name", "Intel"))
    return "Intel" not in name and torch.backends.cpu.get_cpu_capability() == "AVX512"


class Products(CustomGraphPass):
    """Rewrites the float32 products on a CPU in a graph that inductor compiles."""

    def __init__(self, onednn: bool):
        """Set up.

        Args:
            onednn: whether large products are to go to oneDNN.
        """
        self.onednn = onednn

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        for node in list(graph.nodes):
            if operands := _operands(node):
                self._rewrite(graph, node, *operands)

    def uuid(self) -> bytes:
        """Of this file and the setting, for inductor's cache of compiled code."""
        return get_hash_for_files((__file__,), str(self.onednn))

    def _rewrite(self, graph: Graph, node: Node, left: Node, right: Node, bias: Node | None) -> None:
        one, other = left.meta["val"], right.meta["val"]
        (rows, inner), columns = one.shape[-2:], other.shape[-1]
        each = rows * inner * columns
        turned = bias is None and _waste(columns) > GAIN * _waste(rows) and each * prod(one.shape[:-2]) >= TURNED
        moved = self.onednn and each >= SMALLEST
        if not turned and not moved:
            return
        with graph.inserting_before(node):
            if turned:
                left, right = _transposed(graph, right), _transposed(graph, left)
            if moved:
                found = _call(graph, torch.ops.vaebench.product.default, left, right, bias)
            else:
                found = _call(graph, node.target, left, right)
            node.replace_all_uses_with(_transposed(graph, found) if turned else found)
        graph.erase_node(node)


def _waste(size: int) -> float:
    """Lanes that so many numbers in a row take, over their number."""
    return -(-size // LANES) * LANES / size


def _call(graph: Graph, target: Any, *arguments: Any) -> Node:
    node = graph.call_function(target, arguments)
    node.meta["val"] = target(*(a.meta["val"] if isinstance(a, Node) else a for a in arguments))
    return node


def _transposed(graph: Graph, node: Node) -> Node:
    axes = [1, 0] if node.meta["val"].ndim == 2 else [0, 2, 1]
    return _call(graph, torch.ops.aten.permute.default, node, axes)


def _operands(node: Node) -> tuple[Any, Any, Any] | None:
    """(left, right, bias) of a product of float32 matrices on the CPU, or None if the node is something else."""
    arguments: tuple[Any, ...] = node.args
    if node.target in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
        operands = *arguments, None
    elif node.target is torch.ops.aten.addmm.default and not node.kwargs and arguments[0].meta["val"].ndim == 1:
        operands = *arguments[1:], arguments[0]
    else:
        return None
    result = node.meta["val"]
    return operands if result.device.type == "cpu" and result.dtype == torch.float32 else None
