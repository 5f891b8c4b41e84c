"""What is pinned because it makes timings lie, as it goes into every record beside them.

The variables are set by the Makefile and by asv's environment; they must be there when the process starts.
"""

import os

import torch

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")


def pinned() -> dict[str, str]:
    """Threads and allocator as this process has them, and what every benchmark does about warm-up and `foreach`."""
    found = {name: os.environ.get(name, "not set") for name in VARIABLES}
    return found | {
        "torch threads": str(torch.get_num_threads()),
        "warm-up": "one call, not counted",
        "foreach": "named by each optimizer of vaebench.training.optimizers, never torch's choice",
    }
