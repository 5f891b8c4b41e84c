"""Compiled gradients, by torch's inductor: never eager without a word, and checked once.

torch.compile leaves code that it has compiled for eight inputs to eager execution, code that it cannot trace too, drops
hooks that it does not see, knows no `torch.autograd.Function` under vmap, and asks at every call whether anything has
changed, which takes longer than a small gradient. Here a function is traced once for each layout of its inputs, as
tensors go through it: what depends on their values is an error, and the first result is compared with the eager one.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from vaebench.gradients.loss import Parameters
from vaebench.gradients.memory import Differentiator
from vaebench.support.internals import Build, compile_flat, interpret_flat

Result = tuple[Parameters, Tensor]
FIRST = 16  # steps before a gradient is recorded: fewer take less time than that
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # torch's name of the variable that says where inductor keeps its code


class CompilationError(RuntimeError):
    """A gradient that cannot be compiled here, or that differs once it is."""


class Compiler:
    """Compiles gradients, and goes on with the eager ones, telling `say` why, once, where that fails.

    Attributes:
        failure: why it failed, a sentence; None if it did not.
    """

    def __init__(self, say: Callable[[str], None] | None = None, build: Build = compile_flat, after: int = 0):
        self.failure: str | None = None
        self._say, self._build, self._after = say, build, after

    @property
    def outcome(self) -> str:
        """How the gradients were computed, for a record: "compiled", "recorded", or "eager" and why."""
        done = "compiled" if self._build is compile_flat else "recorded"
        return done if self.failure is None else f"eager: {self.failure}"

    def __call__(self, differentiate: Differentiator) -> Differentiator:
        """The same gradient compiled, to rounding, or the eager one after a failure."""
        fast = compiled(differentiate, self._build, self._after)

        def run(parameters: Parameters, x: Tensor, noise: Tensor) -> Result:
            if self.failure is None:
                try:
                    return fast(parameters, x, noise)
                except CompilationError as error:
                    self.failure = f"{error}"
                    if self._say is not None:
                        self._say(f"Steps are not compiled: {error}")
            return differentiate(parameters, x, noise)

        return run


def recorder() -> Compiler:
    """A compiler whose code are the gradient's own operations, called without Python: bit for bit the eager gradient.

    On a CPU, and for parts that are known to remember no calls, since nothing of theirs runs at a step any more.

    Returns:
        The compiler. Where a gradient cannot be recorded it stays eager, without a word: it is the same.
    """
    return Compiler(build=interpret_flat, after=FIRST)


def compiled(differentiate: Differentiator, build: Build = compile_flat, after: int = 0) -> Differentiator:
    """A gradient by inductor, one compilation for each layout of its inputs: seconds, fewer if it is on the disk.

    Compile what is repeated: a micro-batch rather than the batch, `vmap` of a gradient for a fleet. The gradient must
    not draw random numbers, and what else it depends on must stay as it is at the first call: changes are not looked
    for. `build` makes the code, from a function of tensors and examples of them: inductor, or `interpret_flat`, which
    is ready at once, needs no compiler and gains less. `after` calls with a layout are eager, so that no code is made
    for a few steps.

    Returns:
        The same function, to rounding, of tensors without a graph. On its first call with new layouts it raises a
        `CompilationError` if compilation fails, as it does where there is no C++ compiler, or if a gradient differs
        from the eager one by more than rounding explains, which switches a share of ReLUs too.
    """
    ready: dict[tuple[Any, ...], Differentiator] = {}
    calls: Counter[tuple[Any, ...]] = Counter()

    def run(parameters: Parameters, x: Tensor, noise: Tensor) -> Result:
        key = _layout(parameters, x, noise)
        if calls[key] < after:
            calls[key] += 1
            return differentiate(parameters, x, noise)
        with torch.no_grad():
            if key not in ready:
                fast = _compile(differentiate, build, parameters, x, noise)
                _compare_results(fast(parameters, x, noise), differentiate(parameters, x, noise))
                ready[key] = fast
            return ready[key](parameters, x, noise)

    return run


def keep_code() -> None:
    """Let inductor keep its code in the user's cache directory; for commands, since it sets an environment variable.

    A directory that the variable names already stays. Where there is none to write to, or its path has a space, which
    inductor's compiler does not take, torch's own choice, in the directory of temporary files, stays.
    """
    from platformdirs import user_cache_path

    if CACHE not in os.environ:
        with suppress(OSError):
            directory = user_cache_path("vaebench") / "compiled"
            directory.mkdir(parents=True, exist_ok=True)
            if os.access(directory, os.W_OK) and not _has_space(str(directory)):
                os.environ[CACHE] = str(directory)


def _has_space(path: str) -> bool:
    return any(letter.isspace() for letter in path)


def _reason(error: Exception) -> str:
    """In a few words: a path that the compiler is given and does not take, or else what it said."""
    said = " ".join(str(error).split())
    paths = {
        CACHE: os.environ.get(CACHE, ""),
        "TMPDIR": tempfile.gettempdir(),
        "torch": os.path.dirname(torch.__file__),
    }
    for name, path in paths.items():
        if "C++ compile error" in said and _has_space(path):
            what = "install torch elsewhere" if name == "torch" else f"set {name} to another"
            return f"inductor's compiler takes no path with a space, such as {path!r}: {what}"
    return said[:200]


def _layout(parameters: Parameters, x: Tensor, noise: Tensor) -> tuple[Any, ...]:
    return (*parameters, *((t.shape, t.stride(), t.dtype, t.device) for t in (x, noise, *parameters.values())))


def _compile(
    differentiate: Differentiator, build: Build, parameters: Parameters, x: Tensor, noise: Tensor
) -> Differentiator:
    names, results = list(parameters), []

    def flat(*tensors: Tensor) -> list[Tensor]:
        found, values = differentiate(dict(zip(names, tensors, strict=False)), *tensors[len(names) :])
        results[:] = found
        return [*found.values(), values]

    try:
        fast = build(flat, [*parameters.values(), x, noise])
    except Exception as error:
        raise CompilationError(f"Compilation failed ({_reason(error)}); use eager code.") from error

    def run(parameters: Parameters, x: Tensor, noise: Tensor) -> Result:
        *found, values = fast(*parameters.values(), x, noise)
        return dict(zip(results, found, strict=True)), values

    return run


def _compare_results(found: Result, expected: Result) -> None:
    """Values are those of sums that may cancel: below 1, their errors are not relative."""
    require_agreement("gradient of", found[0], expected[0])
    require_agreement("value", *(dict(enumerate(torch.atleast_1d(values))) for _, values in (found, expected)), least=1)


def require_agreement(what: str, found: Mapping[Any, Tensor], expected: Mapping[Any, Tensor], least: float = 0) -> None:
    """Whether compiled tensors are the eager ones but for rounding, which switches a share of ReLUs too.

    Numbers that are not finite, as those of members that diverged, must be so in both.

    Raises:
        CompilationError: if they are not.
    """
    rounding = torch.finfo(next(iter(expected.values())).dtype).eps
    right = {name: g.nan_to_num(0, 0, 0) for name, g in expected.items()}
    whole_norm = torch.stack([torch.linalg.vector_norm(g) for g in right.values()]).norm()
    for name, g in right.items():
        if not torch.equal(found[name].isfinite(), expected[name].isfinite()):
            raise CompilationError(f"The compiled {what} {name} is not finite where the eager one is; use eager code.")
        off, norm = torch.linalg.vector_norm(found[name].nan_to_num(0, 0, 0) - g), torch.linalg.vector_norm(g)
        allowed = 4 * (rounding / 2) ** 0.5 * norm.clamp(least) + 100 * rounding * whole_norm
        if not off <= allowed:
            raise CompilationError(
                f"The compiled {what} {name}, of norm {float(norm):.3g}, is off by {float(off):.3g}, allowed are "
                f"{float(allowed):.3g}: compilation lost a part of it; use eager code."
            )
