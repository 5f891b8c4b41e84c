"""Matrix products of compiled gradients: turned the quicker way round, and our own where MKL is held back.

Rows of a product are computed a vector at a time, so that a product of 5 columns wastes eleven lanes of sixteen, and
its transpose none. Measured on one core of an AMD EPYC with AVX-512: 32 products of 32 x 50 by 50 x 5 take 48 us, and
13 us turned round.

On processors that are not Intel's, moreover, MKL's single-precision products stay with AVX2. GFLOP/s on that core, of
all products of a gradient's dense layers, forward and backward:

    784-200-200-50 at batches of 32, 128, 1,280:  MKL 102, 110, 111;  oneDNN 136, 200, 231;  products.cpp 198, 231, 236
    64-50-50-8, 32 members, batches of 32:        MKL 86;                                    products.cpp 167

MKL made to believe that the processor is Intel's reaches 219, 244, 253 and 154, so on Intel's it is left to its work.
So it is where there are more threads than ours make use of.
"""

import ctypes
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from torch._inductor.codecache import CppCodeCache
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

LANES = 16  # float32 numbers in a vector
GAIN = 1.1  # times as many lanes wasted make a product worth turning
TURNED = 2**17  # multiply-adds that make it so
PART = 48  # rows that products.cpp leaves to one thread, however many there are

_LIBRARY = torch.library.Library("vaebench", "DEF")
_LIBRARY.define("product(Tensor left, Tensor right) -> Tensor", tags=(torch.Tag.flexible_layout,))
_PRODUCT = torch.ops.vaebench.product.default


def _described(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(*left.shape[:-1], right.shape[-1])


_LIBRARY.impl("product", _described, "Meta")


class _Code(CppCodeCache):
    cpp_compile_command_flags = {"include_pytorch": True}  # noqa: RUF012 - as inductor has it


class _Shims(dict[str, list[str]]):
    """C functions by the operation's name, which inductor's cache can keep; it could not keep the operation."""

    def __contains__(self, operation: object) -> bool:
        return super().__contains__(str(operation))


@cache
def held_back() -> bool:
    """Whether MKL multiplies float32 matrices here with half of what the processor has."""
    if not torch.backends.mkl.is_available():
        return False
    name = str(torch.cpu.get_capabilities().get("cpu_name", "Intel"))
    return "Intel" not in name and torch.backends.cpu.get_cpu_capability() == "AVX512"


@cache
def _build() -> _Shims:
    """Compile and load our own products, seconds the first time on a machine: what inductor is to know of them."""
    code = _Code.load(files("vaebench.training").joinpath("products.cpp").read_text("utf-8"))
    ctypes.CDLL(code._name, ctypes.RTLD_GLOBAL)  # compiled gradients look for the function
    declared = "AOTITorchError aoti_torch_cpu_product(AtenTensorHandle, AtenTensorHandle, AtenTensorHandle*)"
    return _Shims({str(_PRODUCT): [declared]})


def options() -> dict[str, Any]:
    """What inductor is to do with products on this machine's CPU."""
    own = held_back()
    shims = {"aot_inductor.custom_ops_to_c_shims": _build()} if own else {}
    return {"post_grad_custom_post_pass": Products(own, torch.get_num_threads()), **shims}


class Products(CustomGraphPass):
    """Rewrites the float32 products on a CPU in a graph that inductor compiles."""

    def __init__(self, own: bool, threads: int):
        """Set up.

        Args:
            own: whether products are to be our own, where they keep all threads busy; torch's divide small ones too.
            threads: torch's.
        """
        self.own, self.threads = own, threads

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        for node in list(graph.nodes):
            if operands := _operands(node):
                self._rewrite(graph, node, *operands)

    def uuid(self) -> bytes:
        """Of this file and the settings, for inductor's cache of compiled code."""
        return get_hash_for_files((__file__,), f"{self.own} {self.threads}")

    def _rewrite(self, graph: Graph, node: Node, left: Node, right: Node, bias: Node | None) -> None:
        one, other = left.meta["val"], right.meta["val"]
        rows, columns, size = one.shape[-2], other.shape[-1], one.numel() * other.shape[-1]
        turned = _waste(columns) > GAIN * _waste(rows) and size >= TURNED
        parts = one.shape[:-2].numel() * -(-(columns if turned else rows) // PART)
        own = self.own and parts >= self.threads
        if not turned and not own:
            return
        target = _PRODUCT if own else torch.ops.aten.mm.default if one.ndim == 2 else torch.ops.aten.bmm.default
        with graph.inserting_before(node):
            if turned:
                found = _transposed(graph, _call(graph, target, _transposed(graph, right), _transposed(graph, left)))
            else:
                found = _call(graph, target, left, right)
            node.replace_all_uses_with(_call(graph, torch.ops.aten.add.Tensor, found, bias) if bias else found)
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
    result, inner = node.meta["val"], arguments[-1].meta["val"].shape[-2]
    ours = result.device.type == "cpu" and result.dtype == torch.float32 and result.numel() * inner > 0
    return operands if ours else None
