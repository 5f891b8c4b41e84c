"""Models, data and estimators named on a command line: registered ones, and package.module:function of one's own."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vaebench.experiments.blackboxes import Claim
    from vaebench.gradients import Objective


def find_part(known: Mapping[str, Any], name: str) -> Any:
    """A registered part, or package.module:function, found from the current directory too.

    Args:
        known: registered parts by name.
        name: of one of them, or a module and an attribute with a colon between.

    Returns:
        The part.

    Raises:
        ValueError: if the module cannot be imported, or has no such attribute.
    """
    if ":" not in name:
        return known[name]
    place, _, attribute = name.partition(":")
    if place.endswith(".py"):
        place = place.removesuffix(".py").replace("/", ".")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as missing:
        raise ValueError(f"There is no module {missing.name!r} here or installed, for {name!r}.") from None
    except Exception as broken:
        raise ValueError(f"Importing {place!r} raised {type(broken).__name__}: {broken}") from None
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"{place!r} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def build_data(name: str, seed: int) -> Tensor:
    """A data set by name.

    Args:
        name: registered, or one's own function without arguments that must be given.
        seed: of the generator, if it takes one, and of torch's own while it runs.

    Returns:
        Rows (N, *event).

    Raises:
        ValueError: if it is no tensor.
    """
    import torch

    from vaebench.data import DATA

    made = _call(find_part(DATA, name), name, seed, {})
    made = made[0] if isinstance(made, tuple) and made else made
    if not isinstance(made, torch.Tensor):
        raise ValueError(f"{name} must return a tensor (N, *event), got {type(made).__name__}.")
    return made


def build_model(name: str, seed: int, rows: Tensor) -> nn.Module:
    """A model by name, for the data.

    Args:
        name: registered, or one's own function, or a class; it is offered `event` and `features` of the data.
        seed: of the generator, if it takes one, and of torch's own while it runs.
        rows: the data.

    Returns:
        The model.

    Raises:
        ValueError: if it is no module with a posterior and a likelihood.
    """
    from torch import nn

    from vaebench.models import MODELS, LatentModel

    found = find_part(MODELS, name)
    if not isinstance(found, nn.Module):
        found = _call(found, name, seed, {"event": tuple(rows.shape[1:]), "features": rows.shape[-1]})
    if not isinstance(found, nn.Module) or not isinstance(found, LatentModel):
        raise ValueError(
            f"{name} must return an nn.Module with latents, posterior and likelihood, got {type(found).__name__}; "
            "vaebench.models.from_encoder_decoder makes one of an encoder and a decoder."
        )
    return found


BOXES = ("pyro", "numpyro", "black-box")


def build_claim(kind: str, name: str, seed: int, rows: Tensor, objective: Objective, model: nn.Module | None) -> Claim:
    """A black box of one's own, beside what it is held against.

    Args:
        kind: one of `BOXES`.
        name: package.module:function, which returns model, guide and ELBO object, or the box itself.
        seed: of torch's generator while it runs.
        rows: the data.
        objective: the bound that is claimed; Pyro's and NumPyro's ELBO objects say theirs.
        model: whose bound is claimed of a box in NumPy, with parameters of the same names.

    Returns:
        The claim.

    Raises:
        ValueError: if the function returns something else, or an extra is not installed.
    """
    from vaebench.experiments.blackboxes import BlackBox, Claim, of_model

    made = _call(find_part({}, name if ":" in name else f"{name}:make"), name, seed, {})
    if kind == "black-box":
        if not isinstance(made, BlackBox):
            raise ValueError(f"{name} must return a black box with parameters and value_and_gradient, got {made!r}.")
        if model is None:
            raise ValueError("A black box needs --model, the model whose bound it claims to differentiate.")
        trusted = of_model(model, objective)
        shapes = [{key: tuple(value.shape) for key, value in box.parameters.items()} for box in (made, trusted)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"The box has parameters {shapes[0]}, the model {shapes[1]}; names and shapes must agree.")
        return Claim(made, trusted, objective)
    if not isinstance(made, tuple) or len(made) != 3:
        raise ValueError(f"{name} must return three things, (model, guide, ELBO object), got {type(made).__name__}.")
    try:
        if kind == "pyro":
            from vaebench.experiments.blackboxes.from_pyro import from_pyro

            return from_pyro(*made, rows)
        from vaebench.experiments.blackboxes.from_numpyro import from_numpyro

        return from_numpyro(*made, rows.numpy())
    except ModuleNotFoundError as missing:
        raise ValueError(f"{missing.name} is not installed: pip install 'vaebench[{kind}]'.") from None


def _call(factory: Callable[..., Any], name: str, seed: int, offered: Mapping[str, Any]) -> Any:
    """Call a factory with what it takes of a generator and the arguments offered; torch's own generator is put back."""
    import torch

    if not callable(factory):
        return factory
    taken = inspect.signature(factory).parameters
    given = {"generator": torch.Generator().manual_seed(seed)} | dict(offered)
    chosen = {key: value for key, value in given.items() if key in taken}
    lacking = [
        key
        for key, one in taken.items()
        if one.default is one.empty and one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY}
    ]
    lacking = [key for key in lacking if key not in chosen]
    if lacking:
        raise ValueError(f"{name} needs the argument {lacking[0]!r}, which nothing here gives; give it a default.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(**chosen)
