"""Recorded functions in fewer operations: the same in every bit, on memory of their own."""

import pytest
import torch

from vaebench.support.internals import interpret_flat
from vaebench.support.internals import recorded as record_of
from vaebench.support.simplifying import simplified

X = torch.tensor([[0.5, -0.0], [float("nan"), float("inf")]])
OTHER = torch.tensor([[-0.0, float("-inf")], [3.0, 1e-45]])


def operations(record) -> list[str]:
    return [str(node.target).split(".")[1] for node in record.graph.nodes if node.op == "call_function"]


def same_bits(first, second) -> bool:
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(first, second, strict=True))


FEWER = {
    "units": (lambda x: [((x * 1.0) / 1).pow(1.0).neg()], ["neg"]),
    "idle views": (lambda x: [x.view(2, 2).expand(2, 2).detach().exp()], ["exp"]),
    "other views stay": (lambda x: [x.view(4).expand(3, 4) + 1], ["view", "expand", "add"]),
    "another dtype stays": (lambda x: [(x > 0) * 1.0], ["gt", "mul"]),
    "other numbers stay": (lambda x: [x * 2.0 / 3.0], ["mul", "div"]),
    "what is always the same": (lambda x: [x + torch.ones_like(x).neg().exp()], ["add"]),
    "of a layout alone": (lambda x: [(x + 1) * (x + 2).new_full((2,), 3.0).sum()], ["add", "mul"]),
    "what nothing uses": (lambda x: [x.exp(), x.sin()][:1], ["exp"]),
}


@pytest.mark.parametrize("name", FEWER)
def test_what_is_idle_is_left_out_and_no_bit_is_another(name):
    function, left = FEWER[name]
    record = record_of(function, [X])
    made = simplified(record)
    assert operations(made) == left
    for x in (X, OTHER):
        assert same_bits(made(x), function(x))
        assert same_bits(interpret_flat(function, [X])(x), function(x))


def test_what_is_worked_on_in_place_is_no_copy_of_what_is_left_as_it_is():
    """x * 1 is a copy, and ones of which one is changed are not always the same."""

    def function(x):
        copy, ones = x * 1.0, torch.ones_like(x)
        copy.add_(1)
        ones.mul_(x)
        return [x + copy, ones + 1]

    for x in (X, OTHER, X):
        given = x.clone()
        assert same_bits(interpret_flat(function, [X])(given), function(x))
        assert same_bits([given], [x])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [x * 1.0],
        lambda x: [torch.ones_like(x)],
        lambda x: (lambda y: [y, y * 1.0])(x + 1),
        lambda x: (lambda y: [y, (y * 1.0).view(4)])(x + 1),
    ],
    ids=["the input's", "a constant's", "another's", "a view of another's"],
)
def test_a_result_is_memory_of_its_own_as_before(function):
    """Whoever is given a gradient may clip it in place: neither an input nor the next gradient may change by that."""
    fast, x = interpret_flat(function, [X]), X.clone()
    for result in fast(x):
        result.zero_()
    assert same_bits([x], [X])
    assert same_bits(fast(x), function(X))
    memory = [result.untyped_storage().data_ptr() for result in fast(x)]
    assert len({*memory}) == len(memory)
