"""How much noise an estimator takes: (K, B, D) standard normal numbers, or more, where it declares so.

An estimator draws nothing itself: what it needs beside one number a sample and latent, such as samples of a control
variate, masks or permutations, it declares, and is given as more standard normal numbers of the same tensor.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from vaebench.support.texts import shown

NoiseShape = Callable[[int, int], tuple[int, int]]
Declared = TypeVar("Declared", bound=Callable[..., Any])


def noise_shape(shape: NoiseShape) -> Callable[[Declared], Declared]:
    """Declare that an estimator takes noise (M, B, E) in place of (K, B, D), with M >= K and E >= D.

    The first K draws and D numbers are those that a built-in estimator is given where both are held against each other
    at equal noise, so let them make the samples. Uniform numbers are `torch.special.ndtr(noise)`. The rows stay apart:
    what is for row b is `noise[:, b]`.

    >>> @noise_shape(lambda samples, latents: (2 * samples, latents))
    ... def twice(model, x, noise, objective): ...
    >>> declared_noise(twice, 5, 3)
    (10, 3)

    Args:
        shape: (K, D) -> (M, E).

    Returns:
        A decorator, which gives the estimator the attribute `noise_shape` and returns it; an estimator that is an
        object of a class may have it as a method.
    """

    def declare(estimator: Declared) -> Declared:
        estimator.noise_shape = shape  # pyright: ignore[reportFunctionMemberAccess]
        return estimator

    return declare


def declared_noise(estimator: Callable[..., Any], samples: int, latents: int) -> tuple[int, int]:
    """The numbers of draws M and of numbers E in a row's noise, (K, D) unless the estimator declares others.

    Args:
        estimator: any; of a `functools.partial`, the function.
        samples: K.
        latents: D.

    Returns:
        M and E.

    Raises:
        ValueError: if what it declares is no such pair, or less than (K, D).
    """
    while isinstance(estimator, partial) and not hasattr(estimator, "noise_shape"):
        estimator = estimator.func
    shape = getattr(estimator, "noise_shape", None)
    if shape is None:
        return samples, latents
    name = getattr(estimator, "__name__", type(estimator).__name__)
    found = shape(samples, latents) if callable(shape) else shape
    if not (isinstance(found, tuple) and len(found) == 2 and all(type(number) is int for number in found)):
        raise ValueError(
            f"The noise_shape of {name!r} must be a function (K, D) -> (M, E) of whole numbers, got {shown(found)}."
        )
    if found[0] < samples or found[1] < latents:
        raise ValueError(
            f"The noise_shape of {name!r} is {found} for (K, D) = {samples, latents}, and must not be less; "
            "leave numbers unused where fewer are needed."
        )
    return found
