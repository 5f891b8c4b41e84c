"""Which examples and which noise a gradient is made of: samplers of indices, and streams of both.

A sampler factory is `(size, batch_size, generator) -> Sampler`; a sampler maps a number of draws n to indices
(n, B). Convergence theory needs `with_replacement`: there successive minibatches are independent.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.support.checks import positive_integer
from vaebench.support.registry import Registry

Sampler = Callable[[int], Tensor]
SamplerFactory = Callable[[int, int, torch.Generator], Sampler]
SAMPLERS: Registry[SamplerFactory] = Registry("sampler", "vaebench.samplers")
BLOCK = 2**16  # random numbers that a stream of `joint_draws` draws at once: part of what a seed means
TAIL = 16  # numbers at the end of a tensor that torch's normal generator on the CPU fills otherwise than the others


@SAMPLERS.register
def with_replacement(size: int, batch_size: int, generator: torch.Generator) -> Sampler:
    """Independent minibatches of B independent, uniform examples of N; the indices live on the generator's device."""
    size, batch_size = positive_integer("size", size), positive_integer("batch_size", batch_size)

    def sample(n: int) -> Tensor:
        return torch.randint(size, (n, batch_size), generator=generator, device=generator.device)

    return sample


@SAMPLERS.register
def epochwise(size: int, batch_size: int, generator: torch.Generator) -> Sampler:
    """Disjoint minibatches of a fresh permutation per epoch; a last, incomplete one is dropped.

    What most training code does. Two minibatches of one epoch are negatively correlated: see `grad_sq`.

    Returns:
        The sampler.

    Raises:
        ValueError: if B exceeds N.
    """
    batches = positive_integer("size", size) // positive_integer("batch_size", batch_size)
    if batches < 1:
        raise ValueError(f"batch_size must be at most {size}, the number of examples, got {batch_size}.")

    def epoch() -> Tensor:
        order = torch.randperm(size, generator=generator, device=generator.device)
        return order[: batches * batch_size].view(batches, batch_size)

    return _buffered(epoch)


def whole(size: int, batch_size: int, generator: torch.Generator) -> Sampler:
    """The same batch at every draw, all N examples in order, so that B must be N; nothing is drawn."""
    if batch_size != size:
        raise ValueError(f"batch_size must be {size}, the number of examples, for whole batches, got {batch_size}.")
    indices = torch.arange(size, device=generator.device)
    return lambda n: indices.expand(n, size)


def repeated(sampler: Sampler, times: int) -> Sampler:
    """Each minibatch of a sampler so many times in a row: the nested design of `gradient_split`."""
    times = positive_integer("times", times)
    return _buffered(lambda: sampler(1).expand(times, -1))


def _buffered(block: Callable[[], Tensor]) -> Sampler:
    kept: list[Tensor] = []

    def sample(n: int) -> Tensor:
        while sum(map(len, kept)) < n:
            kept.append(block())
        rows = torch.cat(kept)
        kept[:] = [rows[n:]]
        return rows[:n]

    return sample


class Stream(NamedTuple):
    """Independent replicates of what one gradient is made of: a minibatch and its noise.

    Attributes:
        sampler: makes indices.
        noise_shape: (K, B, D).
        dtype: of the noise.
        generator: source of the noise, on the device where it is to live.
    """

    sampler: Sampler
    noise_shape: tuple[int, int, int]
    dtype: torch.dtype
    generator: torch.Generator

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Indices (n, B) and standard normal noise (n, K, B, D); the values depend on how n is split over calls."""
        return self.sampler(n), self._noise(n)

    def last(self, n: int, used: int) -> tuple[Tensor, Tensor]:
        """The first `used` of n draws, after which nothing is drawn any more.

        On the CPU, where `torch.randn` fills a tensor from its first number on, but for the last 16, the noise of the
        other draws is never made: a fleet that takes 16 steps at rest would throw nine tenths of it away.

        Returns:
            Indices (used, B) and noise (used, K, B, D), those of `draw(n)`.
        """
        made = used + -(-TAIL // math.prod(self.noise_shape)) if self.generator.device.type == "cpu" else n
        return self.sampler(n)[:used], self._noise(min(n, made))[:used]

    def _noise(self, n: int) -> Tensor:
        device = self.generator.device
        return torch.randn((n, *self.noise_shape), generator=self.generator, dtype=self.dtype, device=device)


def block_length(stream: Stream) -> int:
    """Draws that `joint_draws` makes at once; between blocks, the state of the generator is that of the stream."""
    samples, batch_size, latents = stream.noise_shape
    return max(1, min(256, BLOCK // (batch_size * (samples * latents + 1))))


def joint_draws(streams: Sequence[Stream], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One draw of every stream at a time, made in blocks whose length does not depend on the number of streams.

    Args:
        streams: S streams of one noise shape, which are not drawn from afterwards unless `block_length` divides count.
        count: how many draws.

    Yields:
        Indices (S, B) and noise (S, K, B, D): the first ones, whatever the count.
    """
    block = block_length(streams[0])
    for start in range(0, count, block):
        used = min(block, count - start)
        drawn = (stream.draw(block) if used == block else stream.last(block, used) for stream in streams)
        indices, noise = zip(*drawn, strict=True)
        yield from zip(torch.stack(indices, 1), torch.stack(noise, 1), strict=True)
