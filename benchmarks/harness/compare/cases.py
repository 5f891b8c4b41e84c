"""What `make compare` times: a few benchmarks of the asv suites, and the control workload, none of vaebench's."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import torch

QUANTUM = 20
"""Calls come in multiples of this, so that a planted slowdown of 1 / QUANTUM is real work: a call more in so many."""


class Case(NamedTuple):
    """A benchmark of a suite at one set of parameters.

    Attributes:
        benchmark: module of `benchmarks`, class and method.
        params: of the method, and of the suite's set-up.
        calls: in one sample, some 50 ms.
    """

    benchmark: str
    params: tuple[object, ...]
    calls: int = QUANTUM

    @property
    def name(self) -> str:
        """As asv writes it."""
        return f"{self.benchmark}({', '.join(map(repr, self.params))})"

    def prepare(self) -> Callable[[], object]:
        """Set the suite up with the vaebench that this process imports."""
        module, suite, method = self.benchmark.split(".")
        instance = getattr(importlib.import_module(f"benchmarks.{module}"), suite)()
        instance.setup(*self.params)
        body = getattr(instance, method)
        return lambda: body(*self.params)


CASES = (
    Case("estimators.IwaeMlp.time_gradient", ("doubly_reparameterized", 10, 32, "cpu")),
    Case("estimators.ElboConv32.time_gradient", ("pathwise", 1, 2, "cpu")),
    Case("models.Model.time_step", ("linear", "cpu"), calls=4 * QUANTUM),
    Case("fleet.Fleet.go_on", ("linear",)),
)


class Control:
    """A fixed mixture of a matrix product, elementwise passes and small operations, as training a VAE is one."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.square = torch.randn(160, 160, generator=generator) / 160**0.5
        self.vector = torch.randn(2**14, generator=generator)
        self.scalar = torch.zeros(8)

    def __call__(self) -> None:
        for _ in range(8):
            torch.tanh(self.square @ self.square)
            self.vector.exp().add(1).log().sum()
            for _ in range(10):
                self.scalar.add(1)
