"""Networks: multilayer perceptrons and the paper's convolutional nets.

They are laid out on the meta device and get their parameters from `initialise`, which takes the generator: nothing
reads torch's global one. Weights and biases are uniform in +-1/sqrt(fan_in), torch's own default.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from vaebench.models.convolutions import Conv2d, ConvTranspose2d

Module = TypeVar("Module", bound=nn.Module)


def initialise(
    network: Module,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Module:
    """Draw every weight and bias uniformly from +-1/sqrt(fan_in), on the CPU in float64, then move them.

    Returns:
        The network, the same to rounding in every dtype and on every device; None gives torch's global generator
        the draws.
    """
    network = network.to_empty(device="cpu").to(torch.float64)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                bound = layer.weight[0].numel() ** -0.5
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
    return network.to(device=device, dtype=dtype)


def mlp(sizes: Sequence[int], activation: nn.Module) -> nn.Sequential:
    """A multilayer perceptron on the meta device, (..., sizes[0]) -> (..., sizes[-1]), linear at its end."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, device="meta"), activation]
    return nn.Sequential(*layers[:-1])


class ConvShape(NamedTuple):
    """The paper's convolutional net for one image size: channels outside in, and the dense width."""

    channels: tuple[int, ...]
    dense: int

    def side(self, size: int) -> int:
        """Side of the innermost feature map in pixels, of an image of `size` pixels a side: each layer halves it."""
        return size // 2 ** (len(self.channels) - 1)


CONV_SHAPES = {32: ConvShape((3, 32, 64, 128), 256), 64: ConvShape((3, 64, 128, 256, 512), 1024)}


def conv_encoder(size: int, outputs: int, activation: nn.Module) -> nn.Sequential:
    """The paper's encoder (N, 3, size, size) -> (N, outputs): kernel 4, stride 2, padding 1, and dense layers."""
    shape = CONV_SHAPES[size]
    layers: list[nn.Module] = []
    for inputs, features in pairwise(shape.channels):
        layers += [Conv2d(inputs, features, kernel_size=4, stride=2, padding=1, device="meta"), activation]
    flat = shape.channels[-1] * shape.side(size) ** 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        *mlp((flat, shape.dense), activation),
        activation,
        *mlp((shape.dense, outputs), activation),
    )


def conv_decoder(size: int, latents: int, activation: nn.Module) -> nn.Sequential:
    """The mirror image of `conv_encoder`, by transposed convolutions: (N, latents) -> (N, 3, size, size)."""
    shape = CONV_SHAPES[size]
    inner = (shape.channels[-1], shape.side(size), shape.side(size))
    layers: list[nn.Module] = [
        mlp((latents, shape.dense, math.prod(inner)), activation),
        nn.Unflatten(1, inner),
        activation,
    ]
    for inputs, features in pairwise(shape.channels[::-1]):
        layers += [ConvTranspose2d(inputs, features, kernel_size=4, stride=2, padding=1, device="meta"), activation]
    return nn.Sequential(*layers[:-1])
