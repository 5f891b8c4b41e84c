"""What an experiment may ask for: checked by name before anything large is made."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vaebench.support.texts import shown

LARGEST_SEED = 2**31  # half of the seeds that torch's generator on the CPU tells apart; the others are the starts'
MOST_SEEDS = 10_000
MOST_CHECKPOINTS_PER_DECADE = 1000
MOST_STEPS = 10**8
MOST_CELLS = 5 * 10**8  # numbers in one array: 4 GB of float64
MOST_OPTION = 10**8  # of a size among the options of a part
MOST_OPERATIONS = 10**13  # of a command's gradients: hours of one core
COPIES = 8  # of all members' parameters, that a run beside its replay holds: steps, gradients, moments
OPERATIONS = 6  # of a gradient, for each parameter, sample and example: those of products of matrices
DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


def require_seeds(seeds: Sequence[Any]) -> None:
    """Refuse seeds that are not distinct integers in [0, 2^31), none, or more than 10,000."""
    if not 1 <= len(seeds) <= MOST_SEEDS:
        raise ValueError(f"seeds must be distinct, and at least one and at most {MOST_SEEDS:,}, got {len(seeds):,}.")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < LARGEST_SEED:
            raise ValueError(f"seeds must be integers of at least 0 and below 2^31, got {shown(seed)}.")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct, and at least one, got {shown(list(seeds))}.")


def require_device(device: Any) -> None:
    """Refuse what is not "cpu", "cuda" or "cuda:N"; whether it is there is found out where the experiment runs."""
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {shown(device)}.")


def require_feasible(sizes: Mapping[str, int]) -> None:
    """Refuse steps, seeds (their number), batch_size, samples and measures whose arrays no machine holds."""
    most = dict.fromkeys(sizes, MOST_OPTION) | {"steps": MOST_STEPS, "per_decade": MOST_CHECKPOINTS_PER_DECADE}
    for name, value in sizes.items():
        if value > most[name]:
            raise ValueError(f"{name} must be at most {most[name]:,}, got {shown(value)}.")
    arrays = (
        ("seeds", "steps"),
        ("seeds", "batch_size", "samples"),
        ("rows", "samples"),
        ("replicates", "rows"),
        ("likelihood_rows", "likelihood_samples"),
    )
    for names in arrays:
        require_array({name: sizes[name] for name in names})


def require_array(sizes: Mapping[str, int]) -> None:
    """Refuse an array, by its sizes, that no machine holds."""
    if (cells := math.prod(sizes.values())) > MOST_CELLS:
        numbers = " x ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise ValueError(f"{numbers} are {cells:,} numbers in one array; choose less, at most {MOST_CELLS:,}.")


def require_rows(batch_size: int, rows: int) -> None:
    """Refuse minibatches of more examples than there are: they would hold every one of them several times."""
    if batch_size > rows:
        raise ValueError(f"batch_size must be at most {rows:,}, the number of rows of the data, got {batch_size:,}.")


def require_affordable(parameters: int, members: int, gradients: int, samples: int, batch_size: int) -> None:
    """Refuse a model whose members no machine holds, or whose gradients take one core more than some hours.

    Args:
        parameters: numbers p of the model.
        members: S of the run.
        gradients: of one member, in all.
        samples: K.
        batch_size: B.

    Raises:
        ValueError: that says how much it would take.
    """
    if (cells := COPIES * members * parameters) > MOST_CELLS:
        raise ValueError(
            f"{parameters:,} parameters of {members:,} members take {8e-9 * cells:.2g} GB in {COPIES} copies, at most "
            f"{8e-9 * MOST_CELLS:.2g} GB are taken; choose a smaller model or fewer members."
        )
    if (work := OPERATIONS * parameters * samples * batch_size * gradients) > MOST_OPERATIONS:
        raise ValueError(
            f"{gradients:,} gradients of {parameters:,} parameters take about {work:.1g} operations, at most "
            f"{MOST_OPERATIONS:.0e} are taken; choose a smaller model or batch_size, or fewer steps or replicates."
        )


def require_small(name: str, value: Any) -> None:
    """Refuse an option of a part, a number or a list with numbers, that is a size no machine holds, above 10^8."""
    for one in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(one, int) and abs(one) > MOST_OPTION:
            raise ValueError(f"{name} must be at most {MOST_OPTION:,}, got {shown(one)}.")
