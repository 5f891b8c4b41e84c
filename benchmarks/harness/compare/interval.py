"""From process pairs to a verdict: the control taken out, an interval by resampling, and what it says.

The pair of processes is the unit: two processes with one code differ by more than their own samples show, so that
samples of one pair tell little about the next.
"""

from functools import lru_cache

import numpy as np

SUBSETS = 2**14


def control_variate(rounds: np.ndarray) -> tuple[np.ndarray, float]:
    """Log-ratios of head to base, normalised by the control as far as it helps.

    The share of the control's log-ratio that is taken out is that which explains most of the variance between the
    rounds of a pair, from 0 (the control says nothing) to 1 (a plain quotient). Exchanging base and head in a pair
    leaves it as it is.

    Args:
        rounds: (P, R, 4), seconds of base and its control, of head and its control.

    Returns:
        A log-ratio for each pair, (P,), and the share.
    """
    base, base_control, head, head_control = np.moveaxis(np.log(rounds), -1, 0)
    case, control = head - base, head_control - base_control
    within, beside = (part - part.mean(1, keepdims=True) for part in (case, control))
    share = float(np.clip((within * beside).sum() / np.square(beside).sum(), 0, 1))
    return (case - share * control).mean(1), share


@lru_cache
def subsets(size: int) -> np.ndarray:
    """Every set but the empty one, a row of weights that sum to one each; of large ones a fixed random choice."""
    if 2**size <= SUBSETS:
        members = (np.arange(1, 2**size)[:, None] >> np.arange(size)) & 1
    else:
        members = np.random.default_rng(0).integers(0, 2, (SUBSETS - 1, size))
        members = members[members.any(1)]
    return members / members.sum(1, keepdims=True)


def interval(values: np.ndarray, error: float) -> tuple[float, float]:
    """An interval that lies above the true value with probability `error` at most, and below it likewise.

    Its ends are quantiles of the means of all subsets of the values: Hartigan's (1969) resampling, by which values
    symmetric about the truth, of whatever distributions, are covered exactly as often as claimed, even by few of
    them, where the percentile bootstrap is too short. It inverts the test of random signs, and code compared with
    itself passes that by the fair coin of `launch` alone.

    Args:
        values: of independent pairs.
        error: on either side.

    Returns:
        Lower and upper end, infinite where there are too few values for so small an error.
    """
    means = subsets(len(values)) @ values
    rank = int(error * (len(means) + 1))
    if not rank:
        return -np.inf, np.inf
    means.partition([rank - 1, len(means) - rank])
    return float(means[rank - 1]), float(means[-rank])
