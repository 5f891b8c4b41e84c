"""Parts of a third party: optimizers, samplers and training loops that fail, or make something else than their kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

from vaebench.data.sampling import Sampler, SamplerFactory, epochwise, whole, with_replacement
from vaebench.support.layers import explaining
from vaebench.support.texts import shown
from vaebench.training.optimizers import OptimizerFactory

OTHERS = frozenset({"vaebench", "torch", "numpy"})  # packages whose frames say nothing of a third party's code


def name_of(part: object) -> str:
    """The name of a function, also where some of its arguments are bound."""
    function = part.func if isinstance(part, partial) else part
    return getattr(function, "__name__", type(function).__name__)


@contextmanager
def failing(name: str, model: nn.Module | None = None) -> Iterator[None]:
    """Errors of a third party's part become one sentence, with the function and the line in which they occurred.

    Args:
        name: what is to blame, as "The training loop 'mine'".
        model: every module that is called within.

    Yields:
        Nothing.

    Raises:
        ValueError: in place of any other error; one of this package's as it is.
    """
    try:
        with explaining(model or nn.Module(), name):
            yield
    except ValueError as refusal:
        place = _foreign(refusal.__cause__)
        if place is None or str(refusal).endswith(f", in {place}."):
            raise
        raise ValueError(f"{str(refusal).rstrip('.')}, in {place}.") from refusal.__cause__


def _foreign(broken: BaseException | None) -> str | None:
    """Function, line and file of the innermost frame of a third party's code, if there is one."""
    frame, found = None if broken is None else broken.__traceback__, None
    while frame is not None:
        code = frame.tb_frame.f_code
        if str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0] not in OTHERS:
            found = f"{code.co_name} at line {frame.tb_lineno} of {PurePath(code.co_filename).name}"
        frame = frame.tb_next
    return found


def require_rule(rule: OptimizerFactory, device: torch.device) -> None:
    """Refuse an optimizer that makes something else than its kind; it is called once.

    Args:
        rule: the optimizer.
        device: of the parameters.

    Raises:
        ValueError: that says what it makes, or how it fails.
    """
    with failing(f"The optimizer {name_of(rule)!r}"):
        made: Any = rule([torch.zeros(2, 2, dtype=torch.float64, device=device)], 0.1)
    if not (callable(getattr(made, "step", None)) and hasattr(made, "param_groups")):
        raise ValueError(f"The optimizer must be made with step and param_groups, as torch's are, got {shown(made)}.")


def require_sampler(sampler: SamplerFactory, data: Tensor, batch_size: int) -> None:
    """Refuse a sampler that draws something else than examples, or not from its generator; it is called twice.

    Args:
        sampler: of the minibatches.
        data: (N, *event).
        batch_size: B.

    Raises:
        ValueError: that says what it draws, or how it fails.
    """

    def rows() -> Tensor:
        generator = torch.Generator(device=data.device).manual_seed(0)
        draw: Any = examined(sampler)(len(data), batch_size, generator)
        return draw(2)

    if not torch.equal(rows(), rows()):
        raise ValueError(
            f"The sampler {name_of(sampler)!r} draws other examples from a generator of the same seed; it must draw "
            "from the generator that it is given, and from nothing else."
        )


def examined(sampler: SamplerFactory) -> SamplerFactory:
    """A sampler of a third party whose every draw is looked at; one of this package's as it is.

    Returns:
        A factory whose samplers raise a ValueError where they fail, or draw no indices of examples.
    """
    if sampler in (with_replacement, epochwise, whole):
        return sampler
    name = f"The sampler {name_of(sampler)!r}"

    @wraps(sampler)
    def make(size: int, batch_size: int, generator: torch.Generator) -> Sampler:
        with failing(name):
            draw: Any = sampler(size, batch_size, generator)
        if not callable(draw):
            raise ValueError(f"{name} must make a function n -> (n, B) of indices, got {shown(draw)}.")

        def examine(count: int) -> Tensor:
            rows: Any = None
            with failing(name):
                rows = draw(count)
            _require_examples(name, rows, (count, batch_size), size)
            return rows

        return examine

    return make


def _require_examples(name: str, rows: Any, shape: tuple[int, int], size: int) -> None:
    if not (isinstance(rows, Tensor) and tuple(rows.shape) == shape and rows.dtype == torch.int64):
        got = f"{rows.dtype} of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else shown(rows)
        raise ValueError(f"{name} must draw int64 of shape (n, B) = {shape} for n = {shape[0]}, got {got}.")
    low, high = (int(end) for end in rows.aminmax()) if rows.numel() else (0, 0)
    if low < 0 or high >= size:
        raise ValueError(f"{name} must draw examples 0 to {size - 1}, got {low if low < 0 else high}.")
