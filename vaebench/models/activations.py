"""Activations: generalised soft clipping and the paper's choices for the layers of a VAE."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaebench.support.checks import within


def _reach(x: Tensor, sharpness: float) -> float:
    """How far from a corner e^{-s distance} is a normal number: beyond, exp takes thirty times as long."""
    return (-math.log(torch.finfo(x.dtype).tiny) - 1) / sharpness


def _decay(x: Tensor, corner: float, sharpness: float) -> Tensor:
    """e^{-s|x - corner|}; 0 beyond the reach, unless the corner is at zero, where values that small count."""
    if corner == 0:
        return x.abs().mul_(-sharpness).exp_()
    reach = _reach(x, sharpness)
    near = x.clamp(corner - reach, corner + reach).sub_(corner).abs_().mul_(-sharpness).exp_()
    return F.threshold(near, 3 * torch.finfo(x.dtype).tiny, 0.0, inplace=True)  # at the reach it is e times the tiniest


class _SoftClip(torch.autograd.Function):
    """Soft clipping that saves its input alone.

    With a = e^{-s|x - low|} and b = e^{-s|x - high|}, f(x) = clamp(x, low, high) + log1p((a - b) / (1 + b)) / s equals
    the defining formula for every x, and no term overflows or cancels. f'(x) = (1 - e^{-s(high - low)})
    sigmoid(s(x - low)) sigmoid(s(high - x)).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, sharpness: float, low: float, high: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        below, above = _decay(wide, low, sharpness), _decay(wide, high, sharpness)
        below.sub_(above).div_(above.add_(1)).log1p_()
        return wide.clamp(low, high).add_(below, alpha=1 / sharpness).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float, float], output: Tensor) -> None:
        x, ctx.sharpness, ctx.low, ctx.high = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def slope(ctx: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        scale = -math.expm1(-ctx.sharpness * (ctx.high - ctx.low))
        reach = _reach(x, ctx.sharpness)
        rising = x.clamp(max=ctx.low + reach).sub_(ctx.low).mul_(ctx.sharpness).sigmoid_()
        falling = x.clamp(min=ctx.high - reach).sub_(ctx.high).mul_(-ctx.sharpness).sigmoid_()
        return scale * rising * falling

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad * _SoftClip.slope(ctx), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tangent * _SoftClip.slope(ctx)


class SoftClip(nn.Module):
    """Generalised soft clipping, a smooth map of the real line onto (low, high), with corners about 1/s wide.

    f(x) = (1/s) log((1 + e^{s(x - low)}) / (1 + e^{s(x - high)})) + low, s > 0 the sharpness (Surendran,
    Godichon-Baggioni & Le Corff, AISTATS 2025). It is the identity well inside, 0 < f' <= tanh(s(high - low)/4), |f''|
    <= s/4. Exact and finite for every finite input, half precision included.

    Raises:
        ValueError: if sharpness is not positive or the range is empty.
    """

    def __init__(self, sharpness: float, low: float, high: float):
        super().__init__()
        self.sharpness = within("sharpness", sharpness, 0)
        self.low, self.high = within("low", low, -math.inf), within("high", high, -math.inf)
        if not (self.sharpness > 0 and self.low < self.high):
            raise ValueError(
                f"SoftClip needs sharpness > 0 and low < high, got sharpness {sharpness}, low {low}, high {high}."
            )

    def forward(self, x: Tensor) -> Tensor:
        """f(x), of the shape and dtype of x, in [low, high]."""
        return _SoftClip.apply(x, self.sharpness, self.low, self.high)  # pyright: ignore[reportReturnType]

    def extra_repr(self) -> str:
        """The three settings, for the module's repr."""
        return f"sharpness={self.sharpness:g}, low={self.low:g}, high={self.high:g}"


class Activations(NamedTuple):
    """The activations of a VAE: of hidden layers, and of the encoder's mean and log-variance outputs."""

    hidden: nn.Module
    mean: nn.Module
    log_variance: nn.Module


def relu() -> Activations:
    """ReLU in hidden layers, unclipped heads."""
    return Activations(nn.ReLU(), nn.Identity(), nn.Identity())


def tanh() -> Activations:
    """Hyperbolic tangent in hidden layers, unclipped heads."""
    return Activations(nn.Tanh(), nn.Identity(), nn.Identity())


def soft_clip(sharpness: float) -> Activations:
    """The paper's soft clipping, s of 1 to 10: hidden (0, 50), mean (-50, 50), log-variance (-20, 20)."""
    ranges = ((0, 50), (-50, 50), (-20, 20))
    return Activations(*(SoftClip(sharpness, low, high) for low, high in ranges))
