"""How thoroughly: what is measured at each level of a certificate."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Level:
    """How much is measured.

    Attributes:
        steps: of the run that the gates follow on the linear bed.
        members: seeds of it.
        replicates: gradients at each point.
        curve: steps of the run beside theory's curves, at most.
        beds: names of the reference beds beside the linear one.
        pairs: gradients at each point of one's own model, each beside pathwise at the same noise, at most.
        operations: floating-point ones that all pairs at a point may take; what takes more has half as many pairs, or
            a quarter.
        samples: K over which cost and noise are measured, beside the objective's own.
        batches: B, likewise, beside one's own.
        product: whether every K is measured at every B, or each at the other's own value only.
        rounds: interleaved timings at a point, at most.
        timing: seconds of them at a point, at most.
        draws: gradients for a variance, at most.
        drawing: seconds of them at a point, at most.
        seeds: of training on one's own model.
        training: steps of it.
        nets: of reference, on which cost is measured too, names in `vaebench.experiments.certifying.nets.NETS`.
    """

    steps: int
    members: int
    replicates: int
    curve: int
    beds: tuple[str, ...]
    pairs: int
    operations: float
    samples: tuple[int, ...]
    batches: tuple[int, ...]
    product: bool
    rounds: int
    timing: float
    draws: int
    drawing: float
    seeds: int
    training: int
    nets: tuple[str, ...]


BEDS = ("one latent", "two latents", "deep Gaussian")
SMALL = ("linear", "mlp")
QUICK = Level(
    steps=800,
    members=64,
    replicates=2000,
    curve=800,
    beds=BEDS,
    pairs=1000,
    operations=3e10,
    samples=(1, 4, 16),
    batches=(8, 32, 128),
    product=False,
    rounds=25,
    timing=0.4,
    draws=256,
    drawing=0.35,
    seeds=4,
    training=200,
    nets=SMALL,
)
LEVELS = {
    "fast": Level(120, 64, 1200, 60, (), 256, 3e10, (1,), (4, 8), False, 5, 0.05, 64, 0.3, 3, 20, SMALL),
    "quick": QUICK,
    "default": replace(
        QUICK, steps=2500, members=40, replicates=4000, curve=1000, pairs=4000, operations=3e11, product=True,
        rounds=60, timing=1.5, draws=1024, drawing=3.0, seeds=8, training=1000, nets=(*SMALL, "conv"),
    ),
}  # fmt: skip
