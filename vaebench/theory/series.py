"""What the inequalities share: steps, sums over steps, and a pair of sides."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Inequality(NamedTuple):
    """Both sides of left <= right for n = 1, 2, ... on the last axis: a mean of squared gradients and its bound."""

    left: Array
    right: Array

    @property
    def margin(self) -> Array:
        """Right minus left: not negative in expectation."""
        return self.right - self.left


def as_array(values: ArrayLike) -> Array:
    """Numbers, arrays or CPU tensors without history as a float64 array."""
    return np.asarray(values, dtype=np.float64)


def inverse_sqrt_steps(scale: float, horizon: int) -> Array:
    """The theorem's steps gamma_k = C / sqrt(k), (n,), of n = `horizon`."""
    return scale / np.sqrt(np.arange(1, horizon + 1))


def by_parts(steps: ArrayLike, values: ArrayLike) -> Array:
    """The sums of (f(x_{k-1}) - f(x_k)) / gamma_k over k <= n, for every n, (..., n); f_* cancels."""
    return np.cumsum(-np.diff(as_array(values), axis=-1) / as_array(steps), -1)
