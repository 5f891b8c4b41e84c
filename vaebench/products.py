"""Matrix products of compiled gradients, by oneDNN where MKL is held back.

On processors that are not Intel's, MKL's single-precision products stay with AVX2. Measured on one core of an AMD EPYC
with AVX-512, for the layers of the 784-200-200-50 perceptron and batches of 100 and more: 97 to 107 GFLOP/s by MKL, 140
to 210 by oneDNN. A call of oneDNN takes 10 us longer to begin, so small products are left to MKL.
"""

from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

SMALLEST = 2**21  # multiply-adds; half as many take 20 us either way

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


class ByOneDNN(CustomGraphPass):
    """Replaces the large float32 products on a CPU in a graph of torch.compile."""

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        for node in list(graph.nodes):
            operands = _operands(node)
            if operands and _large(*operands[:2]):
                with graph.inserting_before(node):
                    other = graph.call_function(torch.ops.vaebench.product.default, operands)
                other.meta.update(node.meta)
                node.replace_all_uses_with(other)
                graph.erase_node(node)

    def uuid(self) -> bytes:
        """Of this file, for torch's cache of compiled code."""
        return get_hash_for_files((__file__,))


def _operands(node: Node) -> tuple[Any, Any, Any] | None:
    """(left, right, bias) of a matrix product, or None if the node is something else."""
    arguments: tuple[Any, ...] = node.args
    if node.target in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
        return *arguments, None
    if node.target is torch.ops.aten.addmm.default and not node.kwargs and arguments[0].meta["val"].ndim == 1:
        return *arguments[1:], arguments[0]
    return None


def _large(left: Node, right: Node) -> bool:
    one, other = left.meta["val"], right.meta["val"]
    size = prod((*one.shape[-2:], other.shape[-1]))
    return one.device.type == "cpu" and one.dtype == other.dtype == torch.float32 and size >= SMALLEST
