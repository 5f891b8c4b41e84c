"""Matrix products of our own and turned round are the plain ones, and take the place of those that gain alone."""

import shutil

import pytest
import torch
from torch.func import grad_and_value, vmap
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.profiler import ProfilerActivity, profile

from vaebench.gradients.estimators import draw_noise, pathwise
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.models import mlp_vae
from vaebench.training import products
from vaebench.training.compilation import compiled

OP = torch.ops.vaebench.product.default
CAN_BUILD = torch.backends.cpu.get_cpu_capability() == "AVX512" and shutil.which("g++") is not None
NEEDS_OWN = pytest.mark.skipif(not CAN_BUILD, reason="our own products need AVX-512 and a C++ compiler")
OWN_OR_NOT = pytest.mark.parametrize("own", [False, pytest.param(True, marks=NEEDS_OWN)])


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.fixture
def built():
    products._build()


def transposed(matrix):
    return matrix.mT.contiguous().mT


def spread(matrix):
    """Rows and columns apart."""
    wide = matrix.new_full((*matrix.shape[:-1], 3 * matrix.shape[-1]), torch.nan)
    wide[..., ::3] = matrix
    return wide[..., ::3]


LAYOUTS = {"plain": torch.clone, "transposed": transposed, "spread": spread}
SIZES = [(1, 1, 1), (3, 5, 7), (15, 20, 40), (29, 300, 15), (49, 33, 65), (50, 32, 50), (241, 257, 200), (500, 520, 48)]


def off(found, left, right):
    """By how many roundings, each of the largest number that it may be of, a product is off at most."""
    sizes = left.double().abs() @ right.double().abs()
    return float(((found - left.double() @ right.double()).abs() / sizes).max()) * 2**24


@NEEDS_OWN
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("members", [(), (3,)])
def test_the_product(size, left, right, members, built):
    rows, inner, columns = size
    one, other = LAYOUTS[left](numbers(*members, rows, inner)), LAYOUTS[right](numbers(*members, inner, columns))
    found = OP(one, other)
    assert found.is_contiguous() and found.dtype == torch.float32 and found.shape == (*members, rows, columns)
    assert off(found, one, other) <= inner


@NEEDS_OWN
@pytest.mark.parametrize("threads", [1, 2])
def test_the_product_of_shared_matrices_by_threads(threads, built):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for one, other in (
            (numbers(130, 70).expand(3, 130, 70), numbers(3, 70, 340)),
            (numbers(3, 700, 70), numbers(70, 40).expand(3, 70, 40)),
            (numbers(1, 131, 300), numbers(1, 300, 340)),
        ):
            assert off(OP(one, other), one, other) <= one.shape[-1]
    finally:
        torch.set_num_threads(before)


def targets(function, *inputs, own, threads=1):
    """What a graph of the function calls once the pass went over it, and whether it still computes the same."""
    if own:
        products._build()
    graph = make_fx(function, tracing_mode="fake")(*inputs)
    products.Products(own, threads)(graph.graph)
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


@OWN_OR_NOT
@pytest.mark.parametrize("function", [
    torch.mm,
    lambda a, b: torch.addmm(b[0], a, b),
    lambda a, b: torch.bmm(a.expand(2, -1, -1), b.expand(2, -1, -1)),
])  # fmt: skip
def test_products_become_our_own(function, own):
    found = targets(function, numbers(32, 48), numbers(48, 64), own=own)
    assert found.count(OP) == own and PERMUTE not in found


@NEEDS_OWN
@pytest.mark.parametrize(
    ("members", "rows", "threads", "own"),
    [(1, 48, 1, True), (1, 48, 2, False), (1, 49, 2, True), (2, 9, 2, True), (2, 9, 3, False), (3, 60, 6, True)],
)
def test_products_of_fewer_parts_than_threads_are_left_to_torch(members, rows, threads, own):
    found = targets(torch.bmm, numbers(members, rows, 48), numbers(members, 48, 64), own=True, threads=threads)
    assert (OP in found) == own
    assert products.Products(True, threads).uuid() != products.Products(True, threads + 1).uuid()


@NEEDS_OWN
def test_what_is_turned_is_divided_by_its_columns():
    left, right = numbers(1280, 50), numbers(50, 8)
    found = targets(torch.mm, left, right, own=True, threads=2)
    assert found.count(PERMUTE) == 3 and OP not in found


@OWN_OR_NOT
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
def test_narrow_products_are_turned(left, right, turned, own):
    found = targets(torch.bmm if len(left) == 3 else torch.mm, numbers(*left), numbers(*right), own=own)
    assert found.count(PERMUTE) == 3 * turned and (OP in found) == own


@OWN_OR_NOT
def test_a_bias_is_added_to_what_was_turned(own):
    found = targets(lambda a, b: torch.addmm(b[0], a, b), numbers(1280, 50), numbers(50, 8), own=own)
    assert found.count(PERMUTE) == 3 and found[-1] is torch.ops.aten.add.Tensor


@pytest.mark.parametrize("function", [
    lambda a, b: torch.mm(a.double(), b.double()),
    lambda a, b: torch.addmm(b[0], a, b, beta=2),
    lambda a, b: torch.addmm(a, a, b),
    lambda a, b: (a.unsqueeze(2) * b).sum(1),
    lambda a, b: torch.mm(a[:, :0], b[:0]),
])  # fmt: skip
@OWN_OR_NOT
def test_others_are_left_alone(function, own):
    found = targets(function, numbers(200, 200), numbers(200, 200), own=own)
    assert OP not in found and PERMUTE not in found


def problem():
    generator = torch.Generator().manual_seed(0)
    model = mlp_vae((12, 12), (100,), 8, generator=generator)
    x = torch.rand(16, 12, 12, generator=generator).round()
    loss = Loss(model, pathwise, Objective(10, 0.0))
    return loss, x, draw_noise(model, x, loss.objective, generator)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def our_own(monkeypatch, one_thread):
    monkeypatch.setattr(products, "held_back", lambda: True)


@NEEDS_OWN
@pytest.mark.parametrize("members", [None, 3])
def test_a_compiled_gradient_of_our_own_products_is_the_eager_one(members, our_own, monkeypatch):
    loss, x, noise = problem()
    inputs, differentiate = (own_parameters(loss), x, noise), grad_and_value(loss_function(loss))
    if members:
        differentiate = vmap(differentiate)
        stacked = {name: torch.stack([p + 0.01 * s for s in range(members)]) for name, p in inputs[0].items()}
        inputs = (stacked, *(t.expand(members, *t.shape).contiguous() for t in (x, noise)))
    call, called = products._call, []
    monkeypatch.setattr(products, "_call", lambda graph, *call_of: called.append(call_of[0]) or call(graph, *call_of))
    monkeypatch.setattr(products.Products, "uuid", lambda self: None)  # nothing of this in torch's cache
    fast = compiled(differentiate)
    fast(*inputs)
    assert called.count(OP) >= 7
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
        torch.testing.assert_close(fast(*inputs), differentiate(*inputs), rtol=1e-4, atol=1e-5)
    dispatched = {event.key for event in profiled.key_averages()}
    assert not dispatched & {"vaebench::product", "aoti_torch_cpu_mm_out", "aoti_torch_cpu_bmm_out"}


@NEEDS_OWN
def test_a_product_that_is_off_is_refused(our_own, monkeypatch):
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
