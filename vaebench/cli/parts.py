"""Models, data and black boxes named on a command line: registered ones, and package.module:function of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vaebench.support.registry import imported

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vaebench.experiments.blackboxes import Claim
    from vaebench.gradients import Objective

KINDS = {"pyro": "Pyro program", "numpyro": "NumPyro program", "pythae": "Pythae model", "black-box": "black box"}
FITTING = "try --data digits, or write a package.module:function that returns the model"


def build_data(name: str, seed: int, offered: Mapping[str, Any] | None = None) -> Tensor:
    """A data set by name.

    Args:
        name: registered, or one's own function without arguments that must be given.
        seed: of the generator, if it takes one, and of torch's own while it runs.
        offered: arguments for a function that takes them, such as `dtype`.

    Returns:
        Rows (N, *event); of a pair (x, labels) the first.

    Raises:
        ValueError: if it returns no table of numbers, or none with rows.
    """
    from vaebench.data import DATA
    from vaebench.models import as_table

    found = _build(name, DATA[name], seed, offered or {})
    try:
        rows = as_table(found[0] if isinstance(found, tuple) and found else found)
    except ValueError as refusal:
        raise ValueError(f"{name} must return a tensor (N, *event); {refusal}") from None
    if rows.ndim < 2 or not rows.numel():
        raise ValueError(f"{name} must return rows (N, *event), got shape {tuple(rows.shape)}.")
    return rows


def build_model(name: str, seed: int, rows: Tensor, offered: Mapping[str, Any] | None = None) -> nn.Module:
    """A model by name, for the data.

    Args:
        name: registered, or one's own function, or a class; it is offered `event` and `features` of the data.
        seed: of the generator, if it takes one, and of torch's own while it runs.
        rows: the data.
        offered: further arguments, such as `dtype` and `latents`.

    Returns:
        The model.

    Raises:
        ValueError: if it is no module with a posterior and a likelihood.
    """
    from torch import nn

    from vaebench.models import MODELS, LatentModel

    found: Any = MODELS[name]
    if not isinstance(found, nn.Module):
        shape = {"event": tuple(rows.shape[1:]), "features": rows.shape[-1]}
        found = _build(name, found, seed, shape | dict(offered or {}), FITTING)
    if not isinstance(found, nn.Module) or not isinstance(found, LatentModel):
        raise ValueError(
            f"{name} must return an nn.Module with latents, posterior and likelihood, got {type(found).__name__}; "
            "vaebench.models.from_encoder_decoder makes one of an encoder and a decoder."
        )
    return found


def build_claim(kind: str, name: str, seed: int, rows: Tensor, objective: Objective, model: nn.Module | None) -> Claim:
    """A black box of one's own, beside what it is held against.

    Args:
        kind: of `KINDS`.
        name: package.module:function, which returns model, guide and ELBO object, Pythae's model, or the box itself.
        seed: of torch's generator while it runs.
        rows: the data.
        objective: the bound that is claimed; Pyro's and NumPyro's ELBO objects say theirs.
        model: whose bound is claimed of a box in NumPy, with parameters of the same names.

    Returns:
        The claim.

    Raises:
        ValueError: if the function returns something else, or an extra is not installed.
    """
    from vaebench.experiments.blackboxes import BlackBox, against_model
    from vaebench.experiments.options import made as build

    made = _build(name, imported(KINDS[kind], name if ":" in name else f"{name}:make"), seed, {})
    if kind == "black-box":
        if not isinstance(made, BlackBox):
            raise ValueError(f"{name} must return a black box with parameters and value_and_gradient, got {made!r}.")
        if model is None:
            raise ValueError("A black box needs --model, the model whose bound it claims to differentiate.")
        return against_model(made, model, objective)
    if kind == "pythae":
        return _of_pythae(made, name)
    if type(made).__name__ == "SVI":  # of either library
        made = made.model, made.guide, getattr(made.loss, "__self__", made.loss)
    if not isinstance(made, tuple) or len(made) != 3:
        wanted = "three things, (model, guide, ELBO object), or an SVI object"
        raise ValueError(f"{name} must return {wanted}, got {type(made).__name__}.")
    parts = dict(zip(("model", "guide", "elbo"), made, strict=True))
    try:
        if kind == "pyro":
            from vaebench.experiments.blackboxes.from_pyro import from_pyro

            return build(name, from_pyro, parts | {"x": rows})
        from vaebench.experiments.blackboxes.from_numpyro import from_numpyro

        return build(name, from_numpyro, parts | {"x": rows.numpy()})
    except ModuleNotFoundError as missing:
        raise ValueError(f"{missing.name} is not installed: pip install 'vaebench[{kind}]'.") from None


def _of_pythae(made: Any, name: str) -> Claim:
    try:
        from pythae.models import BaseAE  # pyright: ignore[reportMissingImports]

        from vaebench.experiments.blackboxes.from_pythae import from_pythae
    except ModuleNotFoundError as missing:
        raise ValueError(f"{missing.name} is not installed: pip install 'vaebench[pythae]'.") from None
    if not isinstance(made, BaseAE):
        raise ValueError(f"{name} must return a model of Pythae, got {type(made).__name__}.")
    return from_pythae(made)


def _build(name: str, factory: Callable[..., Any], seed: int, offered: Mapping[str, Any], hint: str = "") -> Any:
    """Call a factory with what it takes of a generator and the arguments offered, torch's own generator seeded too."""
    import torch

    from vaebench.experiments.options import made
    from vaebench.support.repeatable import torch_seeded

    given = {"generator": torch.Generator().manual_seed(seed)} | dict(offered)
    taken = [one for one in inspect.signature(factory).parameters.values() if one.default is one.empty]
    starred = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    if lacking := [one.name for one in taken if one.kind not in starred and one.name not in given]:
        advice = hint or "give it a default, or choose another"
        raise ValueError(f"{name} needs the argument {lacking[0]!r}, which no option gives: {advice}.")
    try:
        with torch_seeded(seed):
            return made(name, factory, given)
    except ValueError as refusal:
        raise ValueError(f"{str(refusal).rstrip('.')}; {hint}." if hint else str(refusal)) from None
