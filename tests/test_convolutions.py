"""The faster convolutions are torch's, values and derivatives, in every transform that the library uses."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import grad, jvp, vjp, vmap

from vaebench.models.convolutions import FEWEST, Conv2d, ConvTranspose2d

SHAPES = [(Conv2d, 3, 5), (ConvTranspose2d, 6, 5), (ConvTranspose2d, 5, 3)]
NAMES = ("encoding", "decoding", "to_pixels")
TOLERANCE = 2e-6  # relative to the largest; sums of up to 3,072 float32 products, whose rounding errors are 6e-8 each

FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own


@pytest.fixture(params=SHAPES, ids=NAMES)
def case(request):
    kind, inputs, outputs = request.param
    generator = torch.Generator().manual_seed(0)
    layer = kind(inputs, outputs, kernel_size=4, stride=2, padding=1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.3, 0.3, generator=generator)
    return layer, torch.randn(FEWEST, inputs, 6, 8, generator=generator), generator


def exact(layer, weight, bias, x):
    """In float64, where torch has one path."""
    operation = {Conv2d: nn.functional.conv2d, ConvTranspose2d: nn.functional.conv_transpose2d}[type(layer)]
    return operation(x.double(), weight.double(), bias.double(), stride=2, padding=1)


def close(found, expected):
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


def ours(layer, weight, bias, x):
    return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))


def arguments(layer, x):
    return layer.weight.detach(), layer.bias.detach(), x


def test_values_and_gradients(case):
    layer, x, generator = case
    pulled = []
    for function in (ours, exact):
        value, pull = vjp(partial(function, layer), *arguments(layer, x))
        upstream = torch.randn(value.shape, generator=generator.manual_seed(1))
        pulled.append((value, *pull(upstream.to(value.dtype))))
    assert pulled[0][0].dtype == torch.float32
    for found, expected in zip(*pulled, strict=True):
        close(found, expected.double())


def test_the_fast_path_is_taken_in_float32_alone_and_for_many_rows(case):
    layer, x, _ = case
    assert "_Convolution" not in type(layer(x[1:]).grad_fn).__name__
    assert "_Convolution" in type(layer(x).grad_fn).__name__
    assert "_Convolution" not in type(layer.double()(x.double()).grad_fn).__name__


def test_plain_autograd_is_the_transform(case):
    layer, x, _ = case
    x.requires_grad_()
    found = torch.autograd.grad(layer(x).square().sum(), (layer.weight, layer.bias, x))
    expected = grad(lambda *a: ours(layer, *a).square().sum(), argnums=(0, 1, 2))(*arguments(layer, x.detach()))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@FORWARD_MODE
def test_forward_mode(case):
    layer, x, generator = case
    at = arguments(layer, x)
    along = tuple(torch.randn(a.shape, generator=generator) for a in at)
    close(
        jvp(partial(ours, layer), at, along)[1],
        jvp(partial(exact, layer), tuple(a.double() for a in at), tuple(a.double() for a in along))[1],
    )


@FORWARD_MODE
def test_forward_over_reverse_and_reverse_over_reverse(case):
    layer, x, generator = case
    weight, bias, x = arguments(layer, x)
    v = torch.randn(weight.shape, generator=generator)

    def loss(function, x, weight):
        return function(layer, weight, bias, x).pow(3).sum()

    expected = jvp(grad(partial(loss, exact, x)), (weight.double(),), (v.double(),))[1]
    close(jvp(grad(partial(loss, ours, x)), (weight,), (v,))[1], expected)
    close(vjp(grad(partial(loss, ours, x)), weight)[1](v)[0], expected)


@pytest.mark.parametrize("inside", [True, False])
def test_members_of_a_fleet(case, inside):
    layer, x, generator = case
    weights = torch.stack([layer.weight.detach(), 2 * layer.weight.detach()])
    biases = torch.stack([layer.bias.detach(), -layer.bias.detach()])
    xs = torch.randn(2, *x.shape, generator=generator)

    def loss(weight, bias, x):
        return ours(layer, weight, bias, x).square().sum()

    if inside:
        found = vmap(grad(loss, argnums=(0, 1)))(weights, biases, xs)
    else:
        stacked = weights.requires_grad_(), biases.requires_grad_()
        found = torch.autograd.grad(vmap(loss)(*stacked, xs).sum(), stacked)
    for member in (0, 1):
        expected = grad(loss, argnums=(0, 1))(weights[member].detach(), biases[member].detach(), xs[member])
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine[member], theirs, rtol=1e-4, atol=1e-4)


def test_frozen_parameters_get_no_gradient(case):
    layer, x, _ = case
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is None and x.grad is not None


DIALECTS = [
    (Conv2d, {"dilation": 2}),
    (Conv2d, {"groups": 2}),
    (Conv2d, {"padding_mode": "reflect"}),
    (Conv2d, {"padding": "same", "stride": 1, "kernel_size": 3}),
    (Conv2d, {"bias": False}),
    (ConvTranspose2d, {"output_padding": 1}),
    (ConvTranspose2d, {"dilation": 2}),
    (ConvTranspose2d, {"groups": 2}),
    (ConvTranspose2d, {"bias": False}),
]


@pytest.mark.parametrize(("kind", "options"), DIALECTS, ids=str)
def test_what_a_layer_is_asked_for_is_done(kind, options):
    generator = torch.Generator().manual_seed(0)
    settings = {"kernel_size": 4, "stride": 2, "padding": 1} | options
    mine = kind(4, 6, **settings)
    theirs = kind.__base__(4, 6, **settings)
    theirs.load_state_dict(mine.state_dict())
    x = torch.randn(FEWEST, 4, 9, 11, generator=generator)
    assert torch.equal(mine(x), theirs(x))


def test_the_size_of_an_output_that_is_asked_for_is_that_of_torch():
    mine = ConvTranspose2d(4, 6, kernel_size=4, stride=2, padding=1)
    x = torch.randn(FEWEST, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert mine(x, output_size=[11, 11]).shape[2:] == (11, 11)
