"""Exact counters against programs counted by hand, and clocks."""

import gc
import math
import subprocess
import sys
import time
import weakref
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.cases import ABSENT_DEVICE
from vaebench.data import digits, patches
from vaebench.gates.contract import gradient
from vaebench.gradients.estimators import ESTIMATORS, draw_noise
from vaebench.gradients.loss import Loss
from vaebench.gradients.objectives import Objective
from vaebench.measures.cost import Cost, StorageLedger, clock, count, device_seconds, interleaved_seconds, saved_bytes
from vaebench.models import conv_vae, mlp_vae

SIZE = 1000
BYTES = 4 * SIZE
"""Of one float32 vector of SIZE."""


@pytest.fixture
def a() -> Tensor:
    return torch.ones(SIZE, requires_grad=True)


# Peak bytes of programs counted by hand, in vectors


def chain() -> None:
    """Each result is dropped when the next is there."""
    value = torch.zeros(SIZE)
    for _ in range(50):
        value = value + 1


def held() -> list[Tensor]:
    return [torch.zeros(SIZE) for _ in range(5)]


def dropped() -> None:
    """Fifty tensors, each freed before the next: a new one may take the address of the last."""
    for _ in range(50):
        torch.zeros(SIZE)


def peak_in_the_middle() -> Tensor:
    values = held()
    total = torch.stack(values).sum(0)
    del values
    return total + 1


def in_place() -> Tensor:
    return torch.zeros(SIZE).add_(1).mul_(2)


def views() -> Tensor:
    return torch.zeros(SIZE).view(10, 100).T[1:].reshape(-1)[:3]


def cast() -> Tensor:
    return torch.zeros(SIZE).double()


def alternating() -> None:
    for index in range(20):
        torch.zeros(SIZE * (1 + index % 2))


@pytest.mark.parametrize(
    ("program", "vectors"),
    [(chain, 2), (held, 5), (dropped, 1), (peak_in_the_middle, 11), (in_place, 1), (cast, 3), (alternating, 2)],
)
def test_peak_bytes_by_hand(program, vectors):
    assert count(program).peak_bytes == vectors * BYTES


def test_a_view_weighs_nothing_but_a_copy_does():
    assert count(views).peak_bytes == BYTES + 99 * 10 * 4


def test_tensors_made_before_weigh_nothing(a):
    b = torch.ones(SIZE)
    assert count(lambda: (a.detach().view(-1, 1), b.add_(1), b[3:].mul_(2))).peak_bytes == 0


def test_a_result_that_is_an_input_weighs_nothing():
    b = torch.ones(SIZE)
    assert count(lambda: b.contiguous()).peak_bytes == 0


def test_forward_and_backward_by_hand(a):
    """exp keeps its result; sum adds 4 bytes; in the backward pass the 4 of the seed, and the gradient, a vector."""

    def program():
        return torch.autograd.grad(a.exp().sum(), a)

    assert count(program).peak_bytes == 2 * BYTES + 4 + 4


def test_what_is_left_of_a_gradient_is_the_gradient(generator):
    model = mlp_vae((8, 8), (12, 10), 3, generator=generator)
    loss, x = Loss(model, ESTIMATORS["pathwise"], Objective()), digits()[:4]
    noise = draw_noise(model, x, Objective(), generator)
    with StorageLedger() as ledger:
        result = gradient(loss, x, noise)
        assert ledger.live_bytes() == sum(p.nbytes for p in model.parameters())
    assert all(ledger.bytes_of(value) == value.nbytes for value in result.values())


# FLOPs and operations


@pytest.mark.parametrize(("rows", "inner", "columns"), [(3, 4, 5), (1, 1, 1), (7, 2, 9)])
def test_flops_of_a_matrix_product(rows, inner, columns):
    first, second = torch.ones(rows, inner), torch.ones(inner, columns)
    assert count(lambda: first @ second).flops == 2 * rows * inner * columns


def test_elementwise_work_has_operations_but_no_flops(a):
    with torch.no_grad():
        assert count(lambda: a.exp().add(1).sum()) == Cost(0, 3, 2 * BYTES)


def test_an_extra_elementwise_pass_is_one_more_operation(a):
    def with_passes(number: int) -> Cost:
        def program():
            value = a.detach()
            for _ in range(number):
                value = value.mul(1.5)

        return count(program)

    assert [with_passes(n).ops - with_passes(0).ops for n in (1, 2, 10)] == [1, 2, 10]


def products(sizes) -> list[int]:
    """Multiply-adds of one row through each layer of an mlp."""
    return [a * b for a, b in pairwise(sizes)]


def convolutions(size: int, channels) -> list[int]:
    """Multiply-adds of one image through each convolution, kernel 4 and stride 2, from the outermost."""
    return [16 * a * b * (size // 2 ** (depth + 1)) ** 2 for depth, (a, b) in enumerate(pairwise(channels))]


MLP = (products((64, 12, 10, 2 * 3)), products((3, 10, 12, 64)))
CONV_CHANNELS = (3, 32, 64, 128)
CONV32 = (
    [*convolutions(32, CONV_CHANNELS), *products((2048, 256, 200))],
    [*products((100, 256, 2048)), *convolutions(32, CONV_CHANNELS)[::-1]],
)


def mlp(generator: torch.Generator):
    return mlp_vae((8, 8), (12, 10), 3, generator=generator), digits()[:4]


def conv32(generator: torch.Generator):
    return conv_vae(32, generator=generator), patches(32)[:2]


def gradient_flops(layers: tuple[list[int], list[int]], rows: int, samples: int) -> int:
    """Per layer a forward, a weight-gradient and an input-gradient product; none for x, the encoder's input.

    The encoder sees B rows, the decoder K B: affine in K, with the encoder counted once.
    """
    encoder, decoder = layers
    return 2 * rows * (3 * sum(encoder) - encoder[0]) + samples * 2 * rows * 3 * sum(decoder)


def gradient_count(case, name: str, samples: int, alpha: float, generator: torch.Generator) -> Cost:
    model, x = case(generator)
    objective = Objective(samples=samples, alpha=alpha)
    loss, noise = Loss(model, ESTIMATORS[name], objective), draw_noise(model, x, objective, generator)
    return count(lambda: gradient(loss, x, noise))


@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("name", ["pathwise", "doubly_reparameterized"])
@pytest.mark.parametrize(("case", "layers"), [(mlp, MLP), (conv32, CONV32)], ids=["mlp", "conv32"])
def test_flops_of_a_gradient_are_affine_in_samples(case, layers, name, alpha, samples, generator):
    rows = 4 if case is mlp else 2
    assert gradient_count(case, name, samples, alpha, generator).flops == gradient_flops(layers, rows, samples)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_flops_of_the_analytic_kl_are_those_of_pathwise(samples, generator):
    assert gradient_count(mlp, "analytic_kl", samples, 1.0, generator).flops == gradient_flops(MLP, 4, samples)


@pytest.mark.parametrize("samples", [2, 5])
@pytest.mark.parametrize("name", ["score_function", "leave_one_out"])
def test_flops_of_the_score_function_spare_the_input_gradient_of_the_decoder(name, samples, generator):
    """Its samples carry no gradient, so the decoder's first layer owes them none."""
    spared = samples * 2 * 4 * MLP[1][0]
    assert gradient_count(mlp, name, samples, 0.0, generator).flops == gradient_flops(MLP, 4, samples) - spared


def test_operations_of_a_gradient_do_not_depend_on_samples(generator):
    counts = {gradient_count(mlp, "doubly_reparameterized", k, 0.0, generator).ops for k in (2, 5, 10)}
    assert len(counts) == 1


# Exact: the same on every run


@pytest.mark.parametrize("name", ["pathwise", "doubly_reparameterized", "leave_one_out"])
def test_counters_repeat_exactly(name, generator):
    assert len({gradient_count(mlp, name, 5, 0.0, generator) for _ in range(5)}) == 1


def test_counters_repeat_exactly_in_another_process(generator):
    code = (
        "import torch; from tests.test_cost import *; print(repr("
        "gradient_count(mlp, 'doubly_reparameterized', 5, 0.0, torch.Generator().manual_seed(1))))"
    )
    root = Path(__file__).parents[1]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == repr(gradient_count(mlp, "doubly_reparameterized", 5, 0.0, generator))


def test_counting_is_independent_of_memory_that_others_hold(generator):
    before = gradient_count(mlp, "pathwise", 2, 0.0, generator)
    others = [torch.zeros(7 * n) for n in range(1, 100)]
    assert gradient_count(mlp, "pathwise", 2, 0.0, generator) == before
    del others[::2]
    assert gradient_count(mlp, "pathwise", 2, 0.0, generator) == before


def test_counting_keeps_nothing_alive():
    made = []

    def program():
        made.append(weakref.ref(torch.zeros(SIZE).untyped_storage()))

    count(program)
    gc.collect()
    assert [reference() for reference in made] == [None] * 3


def test_vmap_is_counted():
    stacked, x = torch.ones(3, 4, 5), torch.ones(5, 6)
    assert count(lambda: torch.func.vmap(lambda matrix: matrix @ x)(stacked)).flops == 2 * 3 * 4 * 5 * 6


# Saved for the backward pass


@pytest.mark.parametrize(
    ("forward", "kept"),
    [
        (lambda a: a.exp().sum(), BYTES),  # its result
        (lambda a: a.sin().sum(), 0),  # its input, made before
        (lambda a: a.exp().sin().sum(), BYTES),  # the result of one is the input of the next: one storage
        (lambda a: a.exp().exp().sum(), 2 * BYTES),
        (lambda a: (a.exp() * a).sum(), BYTES),
        (lambda a: (2 * a).square().sum(), BYTES),
        (lambda a: (2 * a + 1).sum(), 0),  # linear
        (lambda a: (2 * a).view(10, 100)[:5].square().sum(), BYTES),  # a view keeps its whole storage
        (lambda a: a.detach().exp().sum(), 0),
        (lambda a: [a.exp().sum(), a.exp().sum()], 2 * BYTES),
    ],
    ids=["result", "input", "shared", "two", "product", "square", "linear", "view", "no-graph", "both"],
)
def test_saved_bytes_by_hand(a, forward, kept):
    assert saved_bytes(lambda: forward(a)) == kept


def test_a_graph_dropped_on_the_way_is_not_kept(a):
    def forward():
        a.exp().sum()
        return a.exp().sum()

    assert saved_bytes(forward) == BYTES


def test_saved_bytes_frees_the_graph(a):
    made = []

    def forward():
        result = a.exp()
        made.append(weakref.ref(result.untyped_storage()))
        return result.sum()

    saved_bytes(forward)
    assert made[0]() is None


def test_saved_bytes_lets_the_program_differentiate(a):
    def forward():
        (first,) = torch.autograd.grad(a.exp().sum(), a, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), a, create_graph=True)
        assert torch.equal(second, a.exp())
        return second

    assert saved_bytes(forward) > 0


# Clocks


def test_the_clock_is_monotone():
    read = clock("cpu")
    marks = [read() for _ in range(100)]
    assert marks == sorted(marks)


@pytest.mark.parametrize("repeats", [1, 5])
def test_each_repeat_is_timed_after_one_warm_up(repeats):
    calls = []
    seconds = device_seconds(lambda: calls.append(None), "cpu", repeats)
    assert len(seconds) == repeats and len(calls) == repeats + 1
    assert all(second >= 0 and math.isfinite(second) for second in seconds)


def test_seconds_are_seconds():
    """Sleeping is at least as long as asked."""
    assert all(0.01 <= second < 5 for second in device_seconds(lambda: time.sleep(0.01), "cpu", 3))


@pytest.mark.parametrize("repeats", [0, -1, 1.5])
def test_repeats_below_one_or_not_an_integer_are_refused(repeats):
    with pytest.raises(ValueError, match="repeats must be an integer of at least 1, got"):
        device_seconds(lambda: None, "cpu", repeats)


@pytest.mark.parametrize(
    "use", [clock, lambda device: device_seconds(lambda: None, device, 1)], ids=["clock", "seconds"]
)
def test_a_device_that_is_not_there_is_refused(use):
    with pytest.raises(ValueError, match="is not there: torch sees"):
        use(ABSENT_DEVICE)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_time_waits_for_the_device():
    """A large product takes far longer than its launch."""
    matrix = torch.ones(4096, 4096, device="cuda")
    read = clock("cuda")
    start = read()
    seconds = device_seconds(lambda: matrix @ matrix, "cuda", 3)
    assert 1e-4 < min(seconds) <= sum(seconds) <= read() - start


def hands_of_a_clock():
    """A clock and a way to let it run on."""
    now = [0.0]

    def run(seconds):
        now[0] += seconds

    return lambda: now[0], run


def test_computations_take_turns_and_each_keeps_its_column():
    """The second takes two seconds more than the first, whichever comes first in a round; warm-up is not counted."""
    tick, run = hands_of_a_clock()
    calls = []

    def computation(name, seconds):
        return lambda: (calls.append(name), run(seconds))

    times = interleaved_seconds([computation("A", 1.0), computation("B", 3.0)], tick, 0.0, 3, 5)
    assert "".join(calls) == "AB" + "AB" + "BA" + "AB"
    assert times.tolist() == [[1.0, 3.0]] * 3


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 2), (8.0, 3), (1000.0, 5)])
def test_rounds_end_with_the_time_within_their_limits(seconds, rounds):
    """A round takes three seconds: of eight, the third still begins; a thousand are cut at five rounds."""
    tick, run = hands_of_a_clock()
    assert len(interleaved_seconds([lambda: run(3.0)], tick, seconds, 2, 5)) == rounds


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_is_not_collected_while_time_is_taken(collecting):
    seen = []
    (gc.enable if collecting else gc.disable)()
    try:
        interleaved_seconds([lambda: seen.append(gc.isenabled())], time.perf_counter, 0.0, 2, 2)
        assert seen[1:] == [False, False] and gc.isenabled() == collecting
    finally:
        gc.enable()
