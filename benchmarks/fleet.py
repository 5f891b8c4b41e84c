"""What a fleet saves: the time of one member's step among 32, against that of the same run alone.

Setting up is not timed. `track_ratio` interleaves both and takes the best of each, so that a busy machine moves
it little; below 1 the fleet pays, and on the linear VAE it should be below 1/5.
"""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch

from benchmarks.common import by_profile, conv32, generator, needs, part

MEMBERS = 32


def linear() -> tuple[Any, torch.Tensor, int]:
    data = part("data").linear_gaussian(generator=generator())
    return part("models").linear_vae(generator=generator()), data, 64


def mlp() -> tuple[Any, torch.Tensor, int]:
    model = part("models").mlp_vae((8, 8), (50, 50), 8, generator=generator())
    return model, part("data").digits(), 16


def conv() -> tuple[Any, torch.Tensor, int]:
    return *conv32("cpu"), 1


PROBLEMS = {"linear": linear, "mlp_50_50_8": mlp, "conv32": conv}


class Fleet:
    """Pathwise ELBO by Adam, 8 data a batch."""

    version = "1"
    param_names = ("problem",)
    params = (by_profile(["linear", "mlp_50_50_8"], list(PROBLEMS)),)
    timeout = 600
    batch, repeats = 8, 3

    def setup(self, problem: str) -> None:
        part("training.fleet")
        self.model, self.data, self.steps = PROBLEMS[problem]()

    def train(self, seeds: Sequence[int], marks: Sequence[int], **options: Any) -> Iterator[Any]:
        """A run with these checkpoints."""
        estimator, objective = part("gradients.estimators").pathwise, part("gradients.objectives").Objective()
        rule, schedule = part("training.optimizers").adam, part("training.schedules").constant(1e-4)
        what = (self.model, estimator, objective, self.data, rule, schedule, marks[-1], self.batch, seeds)
        return part("training.fleet").train(*what, checkpoints=marks, **options)

    @cached_property
    def going(self) -> Iterator[Any]:
        """A run of all members that reports every second step."""
        return self.train(range(MEMBERS), range(0, 20_000, 2))

    def go_on(self, _: str) -> None:
        """Two steps and a checkpoint, for `make compare`."""
        next(self.going)

    def seconds(self, seeds: Sequence[int], **options: Any) -> float:
        """Of one step of one member."""
        run = self.train(seeds, (0, 2, 2 + self.steps), **options)
        next(run), next(run)
        start = time.perf_counter()
        next(run)
        return (time.perf_counter() - start) / self.steps / len(seeds)

    def track_member_step(self, _: str) -> dict[str, Any]:
        return {"samples": [self.seconds(range(MEMBERS)) for _ in range(self.repeats)], "number": 1}

    def track_solo_step(self, _: str) -> dict[str, Any]:
        return {"samples": [self.seconds((0,)) for _ in range(self.repeats)], "number": 1}

    def ratio(self, **options: Any) -> float:
        pairs = [(self.seconds(range(MEMBERS), **options), self.seconds((0,))) for _ in range(self.repeats)]
        member, solo = (min(column) for column in zip(*pairs, strict=True))
        return member / solo

    def track_ratio(self, _: str) -> float:
        return self.ratio()

    def track_compiled_ratio(self, _: str) -> float:
        """The compiled fleet over the eager single run."""
        compilation = part("training.compilation")
        if hasattr(compilation, "Compiler"):
            return self.ratio(compiler=compilation.compiled)
        return self.ratio(stepper=compilation.compiled_step)

    track_member_step.type = track_solo_step.type = "time"
    track_member_step.unit = track_solo_step.unit = "seconds"
    track_ratio.unit = track_compiled_ratio.unit = "ratio"
    track_compiled_ratio.setup = needs("training.compilation", "compiled")
