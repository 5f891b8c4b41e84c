"""Reference nets: what a gradient costs on them, beside its cost on one's own model, can be compared across pages."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaebench.data import digits, linear_gaussian
from vaebench.experiments.certifying.question import Question
from vaebench.models import conv_vae, linear_vae, mlp_vae

SIDE, ROWS = 32, 128  # pixels and number of the convolutional net's images


class Net(NamedTuple):
    """A net of a fixed size and data for it, in one's own precision and on one's own device.

    Attributes:
        name: as on the page.
        model: the net.
        data: (N, *event).
    """

    name: str
    model: nn.Module
    data: Tensor


def linear(generator: torch.Generator, like: Tensor) -> Net:
    """The smallest: six numbers and two latents, so that what is timed is the dispatching of operations."""
    model = linear_vae(generator=generator, dtype=like.dtype, device=like.device)
    return Net("linear 6-2", model, linear_gaussian(generator=generator, dtype=like.dtype, device=like.device))


def mlp(generator: torch.Generator, like: Tensor) -> Net:
    """A perceptron of 64-200-200-50 with tanh, on digits: products of matrices."""
    model = mlp_vae((64,), generator=generator, dtype=like.dtype, device=like.device)
    return Net("mlp 64-200-200-50", model, digits(dtype=like.dtype, device=like.device).flatten(1))


def conv(generator: torch.Generator, like: Tensor) -> Net:
    """The convolutional net of 32 pixels in three colours, on random ones: the time does not depend on them."""
    model = conv_vae(SIDE, generator=generator, dtype=like.dtype, device=like.device)
    images = torch.rand(ROWS, 3, SIDE, SIDE, generator=generator, device=like.device)
    return Net("conv 32", model, images.to(like.dtype))


NETS: dict[str, Callable[[torch.Generator, Tensor], Net]] = {"linear": linear, "mlp": mlp, "conv": conv}


def reference_nets(question: Question) -> list[Net]:
    """Those that the level asks for, but the linear one where that is what stands for one's own model.

    Args:
        question: what is asked.

    Returns:
        The nets.
    """
    q, like = question, next(question.model.parameters())
    names = [name for name in q.level.nets if q.own or name != "linear"]
    return [NETS[name](q.generator(6), like) for name in names]
