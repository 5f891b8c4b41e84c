"""What kind of number a benchmark records, by its name: this decides how two of its values may be compared.

Exact numbers are counts, the same wherever and whenever they are taken. Seeded numbers come from fixed seeds, data and
starts, and differ between processors in their last digits alone. All others hang on the clock.
"""

import re

COUNTERS = frozenset({"flops", "ops", "peak_bytes", "saved_bytes", "bytes", "over_chunk"})
EXACT = re.compile(rf"\.track_({'|'.join(sorted(COUNTERS))})\b")
SEEDED = re.compile(r"^convergence\.|\.track_(variance|inverse_snr)$")

TOLERANCE = {"exact": 1e-9, "seeded": 1e-2}
"""By what share a number may rise before it is called a rise; counts and their ratios by no more than rounding."""


def kind(benchmark: str) -> str:
    """Exact, seeded or timed.

    Args:
        benchmark: its name by asv, without parameters.

    Returns:
        The kind.

    >>> kind("models.Model.track_flops"), kind("speed.Roof.track_over_sgemm")
    ('exact', 'timed')
    """
    if EXACT.search(benchmark):
        return "exact"
    return "seeded" if SEEDED.search(benchmark) else "timed"


def moved(kind: str, before: float, after: float) -> int:
    """1 for a rise beyond the tolerance of an exact or seeded kind, -1 for a fall, 0 for neither."""
    margin = abs(before) * TOLERANCE[kind]
    return int(after - before > margin) - int(before - after > margin)
