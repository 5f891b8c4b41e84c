"""One training step, written in several ways: what each changes of the eager float32 one, and nothing else."""

import contextlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaebench.gradients.loss import Loss, loss_function
from vaebench.gradients.memory import gradient_and_value
from vaebench.training.compilation import compiled

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-9}


@dataclass(frozen=True)
class Variant:
    """What differs from eager float32.

    Attributes:
        precision: of matrix products and convolutions; everything else stays in float32.
        channels_last: memory format of images and of convolutions' weights.
        compiled: gradient by `vaebench.training.compilation`.
        graph: the whole step replayed as one CUDA graph, with Adam capturable.
    """

    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False
    graph: bool = False

    @property
    def name(self) -> str:
        parts = [self.precision] * (self.precision != "float32")
        parts += [word for word in ("channels_last", "compiled", "graph") if getattr(self, word)]
        return "+".join(parts) or "eager"

    @property
    def allowed(self) -> float:
        """Largest relative error of a gradient that rounding explains.

        Rounding by u switches about a share u of the ReLUs, hence sqrt(u) of the gradient's norm.
        """
        return 4 * ROUNDOFF[self.precision] ** 0.5


EAGER = Variant()
QUICK = (
    EAGER,
    Variant("tf32"),
    Variant("bfloat16"),
    Variant(channels_last=True),
    Variant(graph=True),
    Variant("tf32", graph=True),
    Variant("bfloat16", graph=True),
    Variant("tf32", channels_last=True, graph=True),
    Variant("bfloat16", channels_last=True, graph=True),
)
COMPILED = (
    Variant(compiled=True),
    Variant(compiled=True, graph=True),
    Variant("tf32", compiled=True, graph=True),
    Variant("bfloat16", compiled=True, graph=True),
)


class Bfloat16(nn.Module):
    """A linear layer or convolution in bfloat16, from float32 to float32: activations would lose too much."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            return self.layer(x).float()


def lowered(module: nn.Module) -> nn.Module:
    """The module, changed in place, with its layers in `Bfloat16`; parameters keep their order."""
    for name, child in module.named_children():
        setattr(module, name, Bfloat16(child) if isinstance(child, LAYERS) else lowered(child))
    return module


@contextlib.contextmanager
def precision(variant: Variant | None = None) -> Iterator[None]:
    """torch's TF32 settings as the variant needs them, off without one; as they were afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    tf32 = variant is not None and variant.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@dataclass
class Step:
    """A step that can be taken; `loss` holds the parameters, with the gradients of the last step."""

    variant: Variant
    loss: Loss
    run: Callable[[], None]


def make(variant: Variant, loss: Loss, x: Tensor, noise: Tensor) -> Step:
    """Set a variant up on its own copy of the loss, warm.

    Raises:
        RuntimeError: if it cannot run here, or cannot be compiled.
    """
    if variant.graph and not torch.cuda.is_available():
        raise RuntimeError("CUDA graphs need a CUDA device")
    loss = deepcopy(loss)
    if variant.precision == "bfloat16":
        lowered(loss.model)
    if variant.channels_last:
        if x.ndim != 4:
            raise RuntimeError("channels_last needs images")
        loss, x = loss.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-4, foreach=True, capturable=variant.graph)
    differentiate = gradient_and_value(loss_function(loss))
    if variant.compiled:
        differentiate = compiled(differentiate)

    def step() -> None:
        found, _ = differentiate({name: p.detach() for name, p in loss.named_parameters()}, x, noise)
        for name, parameter in loss.named_parameters():
            parameter.grad = found[name]
        optimizer.step()

    with precision(variant):
        run = captured(step) if variant.graph else step
        run()
    return Step(variant, loss, run)


@dataclass(frozen=True)
class Replay:
    """A captured step. The graph has the addresses of batch, gradients and Adam's moments; `step` keeps them alive."""

    graph: torch.cuda.CUDAGraph
    step: Callable[[], None]

    def __call__(self) -> None:
        self.graph.replay()


def captured(step: Callable[[], None]) -> Replay:
    """The step as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return Replay(graph, step)


def gradient_errors(step: Step, start: list[Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Relative errors of the gradient that one step from `start` leaves, by part of the model.

    Raises:
        RuntimeError: if the step left the parameters where they were.
    """
    parameters = list(step.loss.parameters())
    with torch.no_grad():
        for parameter, value in zip(parameters, start, strict=True):
            parameter.copy_(value)
    with precision(step.variant):
        step.run()
    if all(torch.equal(p, value) for p, value in zip(parameters, start, strict=True)):
        raise RuntimeError("the step did not move the parameters")
    errors: dict[str, float] = {}
    for part in ("encoder", "decoder"):
        pairs = [(p.grad, g) for p, (n, g) in zip(parameters, exact.items(), strict=True) if f".{part}." in n]
        off = sum(float((found.double() - g).square().sum()) for found, g in pairs if found is not None)
        errors[part] = (off / sum(float(g.square().sum()) for _, g in pairs)) ** 0.5
    return errors
