"""Matrix products by oneDNN and turned round are the plain ones, and take the place of those that gain alone."""

import math

import pytest
import torch
from torch.func import grad_and_value, vmap
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.profiler import ProfilerActivity, profile

from tests.cases import NEEDS_COMPILER
from vaebench import products
from vaebench.compilation import compiled
from vaebench.estimators import Loss, draw_noise, pathwise
from vaebench.models import mlp_vae
from vaebench.moments import loss_function, own_parameters
from vaebench.objectives import Objective

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
OP = torch.ops.vaebench.product.default


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


LAYOUTS = {
    "plain": (numbers(130, 70), numbers(70, 40)),
    "left transposed": (numbers(70, 130).t(), numbers(70, 40)),
    "right transposed": (numbers(130, 70), numbers(40, 70).t()),
    "both": (numbers(70, 130).t(), numbers(40, 70).t()),
    "columns apart": (numbers(130, 140)[:, ::2], numbers(70, 80)[:, ::2]),
    "stacked": (numbers(3, 130, 70), numbers(3, 40, 70).mT),
    "one shared": (numbers(130, 70).expand(3, 130, 70), numbers(3, 70, 40)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [None, numbers(40)])
def test_the_product(layout, bias):
    left, right = LAYOUTS[layout]
    exact = left.double() @ right.double() + (0 if bias is None else bias.double())
    found = OP(left, right, bias)
    assert found.is_contiguous() and found.dtype == torch.float32
    assert float((found - exact).abs().max()) < 70 * 2**-24 * 20


def targets(function, *inputs, onednn=True):
    """What a graph of the function calls once the pass went over it, and whether it still computes the same."""
    graph = make_fx(function, tracing_mode="fake")(*inputs)
    products.Products(onednn)(graph.graph)
    graph.recompile()
    torch.testing.assert_close(graph(*inputs), function(*inputs), rtol=1e-4, atol=1e-4)
    for node in graph.graph.nodes:
        if node.op == "call_function":
            assert node.meta["val"].stride() == node.target(*map(zeros, node.args), **node.kwargs).stride()
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def zeros(argument):
    """For a node, a tensor of its layout."""
    value = argument.meta["val"] if isinstance(argument, Node) else None
    return argument if value is None else torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).zero_()


PERMUTE = torch.ops.aten.permute.default


@pytest.mark.parametrize("function", [
    torch.mm,
    lambda a, b: torch.addmm(b[0], a, b),
    lambda a, b: torch.bmm(a.expand(2, -1, -1), b.expand(2, -1, -1)),
])  # fmt: skip
def test_large_products_go_to_onednn(function, monkeypatch):
    monkeypatch.setattr(products, "SMALLEST", 32 * 48 * 64)
    large, small = (targets(function, numbers(rows, 48), numbers(48, 64)) for rows in (32, 31))
    assert large.count(OP) == 1 and PERMUTE not in large and OP not in small
    assert OP not in targets(function, numbers(32, 48), numbers(48, 64), onednn=False)


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize(
    ("left", "right", "turned"),
    [
        ((1280, 50), (50, 8), True),
        ((32, 32, 50), (32, 50, 5), True),
        ((32, 50, 32), (32, 32, 8), True),
        ((8, 1280), (1280, 50), False),
        ((1280, 50), (50, 16), False),
        ((20, 784), (784, 200), False),
        ((32, 50), (50, 8), False),  # too small
    ],
)
def test_narrow_products_are_turned(left, right, turned, onednn, monkeypatch):
    monkeypatch.setattr(products, "SMALLEST", 2**18)
    found = targets(torch.bmm if len(left) == 3 else torch.mm, numbers(*left), numbers(*right), onednn=onednn)
    assert found.count(PERMUTE) == 3 * turned
    assert (OP in found) == (onednn and math.prod((*left[-2:], right[-1])) >= 2**18)


@pytest.mark.parametrize("function", [
    lambda a, b: torch.mm(a.double(), b.double()),
    lambda a, b: torch.addmm(b[0], a, b, beta=2),
    lambda a, b: torch.addmm(a, a, b),
    lambda a, b: (a.unsqueeze(2) * b).sum(1),
])  # fmt: skip
def test_others_are_left_alone(function):
    found = targets(function, numbers(200, 200), numbers(200, 200))
    assert OP not in found and PERMUTE not in found


def problem():
    generator = torch.Generator().manual_seed(0)
    model = mlp_vae((12, 12), (100,), 8, generator=generator)
    x = torch.rand(16, 12, 12, generator=generator).round()
    loss = Loss(model, pathwise, Objective(10, 0.0))
    return loss, x, draw_noise(model, x, loss.objective, generator)


@pytest.fixture
def by_onednn(monkeypatch):
    monkeypatch.setattr(products, "held_back", lambda: True)


def calls(run):
    """How often the operation ran."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
        run()
    return sum(event.count for event in profiled.key_averages() if event.key == "vaebench::product")


@NEEDS_COMPILER
@pytest.mark.parametrize("members", [None, 3])
def test_a_compiled_gradient_by_onednn_is_the_eager_one(members, by_onednn):
    loss, x, noise = problem()
    inputs, differentiate = (own_parameters(loss), x, noise), grad_and_value(loss_function(loss))
    if members:
        differentiate = vmap(differentiate)
        stacked = {name: torch.stack([p + 0.01 * s for s in range(members)]) for name, p in inputs[0].items()}
        inputs = (stacked, *(t.expand(members, *t.shape).contiguous() for t in (x, noise)))
    fast = compiled(differentiate)
    fast(*inputs)
    assert calls(lambda: torch.testing.assert_close(fast(*inputs), differentiate(*inputs), rtol=1e-4, atol=1e-5)) >= 2


@NEEDS_COMPILER
def test_a_product_that_is_off_is_refused(by_onednn, monkeypatch):
    monkeypatch.setattr(products.Products, "uuid", lambda self: None)  # nothing of this in torch's cache
    monkeypatch.setattr(products, "_waste", lambda size: 1.0)
    monkeypatch.setattr(products, "_operands", without_bias(products._operands))
    loss, x, noise = problem()
    with pytest.raises(RuntimeError, match="is off by"):
        compiled(grad_and_value(loss_function(loss)))(own_parameters(loss), x, noise)


def without_bias(operands):
    """A planted fault."""

    def found(node):
        return (*operands(node)[:2], None) if operands(node) else None

    return found


@pytest.mark.parametrize(
    ("name", "capability", "mkl", "expected"),
    [
        ("AMD EPYC", "AVX512", True, True),
        ("AMD EPYC", "AVX2", True, False),
        ("AMD EPYC", "AVX512", False, False),
        ("Intel(R) Xeon(R) Processor", "AVX512", True, False),
        (None, "AVX512", True, False),
    ],
)
def test_where_mkl_is_held_back(name, capability, mkl, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name} if name else {})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    assert products.held_back.__wrapped__() is expected
