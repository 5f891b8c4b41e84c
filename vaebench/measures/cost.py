"""What a computation costs: exact counters, and clocks that are right on every device.

Counters are properties of the dispatched operations, the same on every run and machine with the same torch:
gate on them. Time is a measurement: record it.
"""

import gc
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from vaebench.support.checks import available_device, positive_integer


class Cost(NamedTuple):
    """Exact cost of one call.

    Attributes:
        flops: floating-point operations of matrix products and convolutions, a multiply-add being two.
        ops: operations dispatched to the backend, views included.
        peak_bytes: most bytes held at once by tensors made during the call, libraries' workspaces aside.
    """

    flops: int
    ops: int
    peak_bytes: int


class StorageLedger(TorchDispatchMode):
    """Counts operations and follows the storages they make; those made before weigh nothing."""

    def __init__(self):
        super().__init__()
        self.ops = self.peak_bytes = 0
        self._bytes = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in self._tensors((args, kwargs)):
            self._bytes.setdefault(tensor.untyped_storage(), 0)
        result = func(*args, **(kwargs or {}))
        self.ops += 1
        for tensor in self._tensors(result):
            storage = tensor.untyped_storage()
            self._bytes.setdefault(storage, storage.nbytes())
        self.peak_bytes = max(self.peak_bytes, self.live_bytes())
        return result

    def live_bytes(self) -> int:
        """Bytes of what was made and is still held."""
        return sum(self._bytes.values())

    def bytes_of(self, tensor: Tensor) -> int:
        """Bytes of the storage of a tensor, 0 if it was made before."""
        return self._bytes.get(tensor.untyped_storage()) or 0

    @staticmethod
    def _tensors(tree: Any) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class _OneModule:
    """Stands in for the module tracker of torch's counter, whose hooks refuse a leaf that passes through a layer."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        """Track nothing."""

    def __exit__(self, *raised: object) -> None:
        """Nothing was tracked."""


def count(function: Callable[[], object]) -> Cost:
    """Count one call of a computation exactly, whatever it returns. It is called three times: warm-up, FLOPs, the rest.

    Returns:
        The cost of one call after the first.

    >>> a = torch.ones(4, 8)
    >>> count(lambda: a @ a.T)
    Cost(flops=256, ops=2, peak_bytes=64)
    """
    function()
    flops: Any = FlopCounterMode(display=False)
    flops.mod_tracker = _OneModule()
    with flops:
        function()
    with StorageLedger() as ledger:
        function()
    return Cost(flops.get_total_flops(), ledger.ops, ledger.peak_bytes)


def peak_bytes(function: Callable[[], object]) -> int:
    """`Cost.peak_bytes` of one call alone, on any device.

    Returns:
        Bytes, also where `count` cannot, as FLOPs are not counted of a backward pass inside of a backward pass, and
        on the device "meta", which knows sizes and no numbers.

    >>> a = torch.ones(4, 8, device="meta")
    >>> peak_bytes(lambda: a @ a.T)
    64
    """
    with StorageLedger() as ledger:
        function()
    return ledger.peak_bytes


class _Kept:
    """A tensor that a graph keeps, detached: one that knew its graph would keep the graph alive in turn."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor.detach()


def saved_bytes(forward: Callable[[], object]) -> int:
    """Bytes that a forward pass keeps for the backward one, each storage once, parameters and inputs aside.

    Returns:
        Bytes, of a graph that is not built under `torch.func` transforms, which know no saved-tensor hooks.

    >>> a = torch.ones(4, requires_grad=True)
    >>> saved_bytes(lambda: a.exp().sum())
    16
    """
    packed: WeakSet[_Kept] = WeakSet()  # an entry lives as long as the graph that holds it
    with StorageLedger() as ledger:

        def pack(tensor: Tensor) -> _Kept:
            packed.add(kept := _Kept(tensor))
            return kept

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            graph = forward()
        tensors = {kept.tensor.untyped_storage()._cdata: kept.tensor for kept in packed}
        total = sum(ledger.bytes_of(tensor) for tensor in tensors.values())
    del graph
    return total


def clock(device: str | torch.device) -> Callable[[], float]:
    """A wall clock, in seconds, that waits for a device to finish before it reads."""
    device = available_device(device)
    if device.type != "cuda":
        return time.perf_counter

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


def own_clock(device: str | torch.device) -> Callable[[], float]:
    """The clock, in seconds, that the rest of the machine disturbs least.

    Returns:
        The processor time of this process where torch works on one thread of a CPU: what other processes take is no
        part of it. Else `clock`.
    """
    alone = available_device(device).type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else clock(device)


def interleaved_seconds(
    functions: Sequence[Callable[[], object]], tick: Callable[[], float], seconds: float, fewest: int, most: int
) -> np.ndarray:
    """Time several computations in turn, so that what else the machine does falls on all of them alike.

    Each is called once before, untimed. The order is turned round at every round, and nothing is garbage-collected. The
    clock `tick` is in seconds, such as `clock` makes or `time.process_time`.

    Returns:
        Seconds, (rounds, functions), of `fewest` to `most` rounds; none begins later than `seconds` once there are
        `fewest`.
    """
    for function in functions:
        function()
    times, order, collecting = [], list(range(len(functions))), gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end = tick() + seconds
        while len(times) < fewest or (len(times) < most and tick() < end):
            row = [0.0] * len(functions)
            for place in order:
                start = tick()
                functions[place]()
                row[place] = tick() - start
            times.append(row)
            order.reverse()
    finally:
        if collecting:
            gc.enable()
    return np.array(times)


def device_seconds(function: Callable[[], object], device: str | torch.device, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls after a warm-up, by CUDA events, or by the wall clock on a CPU."""
    device, repeats = available_device(device), positive_integer("repeats", repeats)
    function()
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(repeats):
            function()
            marks.append(time.perf_counter())
        return [end - start for start, end in pairwise(marks)]
    with torch.cuda.device(device):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
        events[0].record()
        for event in events[1:]:
            function()
            event.record()
        torch.cuda.synchronize()
    return [1e-3 * start.elapsed_time(end) for start, end in pairwise(events)]
