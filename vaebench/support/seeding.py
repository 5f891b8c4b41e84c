"""Seeds that come of another seed: hashed, since torch's generator on the CPU keeps the lowest 32 bits of a seed only.

An offset that those bits do not see, such as 2^40, gives the very stream that one wanted to stay clear of.
"""

import numpy as np

KEPT = 2**32  # seeds that torch's generator on the CPU tells apart


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one of several uses of a seed: other uses, and the seed itself, have unrelated streams.

    Args:
        seed: any integer; its lowest 64 bits count.
        purpose: what the stream is for: words, and numbers of at least 0, such as a step.

    Returns:
        An integer in [0, 2^32), by numpy's SeedSequence (O'Neill's seed_seq): two of them agree with probability 2^-32.

    >>> derived_seed(0, "probe", 3) == derived_seed(0, "probe", 3), derived_seed(0, "probe", 4) == derived_seed(0)
    (True, False)
    """
    words = [int.from_bytes(part.encode(), "big") if isinstance(part, str) else part for part in purpose]
    return int(np.random.SeedSequence([seed % 2**64, *words]).generate_state(1)[0])
