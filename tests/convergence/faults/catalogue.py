"""Faults by name: what each changes in a correct run, and whether it is one at all."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.convergence.faults.beds import BEDS


@dataclass(frozen=True)
class Fault:
    """A change of a run.

    Attributes:
        name: of the fault.
        bed: "elbo" or "iwae".
        plant: (arguments of `run_gates`) -> the changed ones.
        source: "listed", "control" (a correct run) or "further".
        rule: the optimizer that it concerns; "any" for both.
        note: why it may survive, if it is known to.
    """

    name: str
    bed: str
    plant: Callable[[dict[str, Any]], dict[str, Any]]
    source: str = "listed"
    rule: str = "any"
    note: str = ""

    def arguments(self, optimizer: str) -> dict[str, Any]:
        """What `run_gates` is given, under a claimed optimizer."""
        base = BEDS[self.bed]() | {"optimizer": optimizer, "law": BEDS[self.bed]()["estimator"].__name__}
        return base | self.plant(base)


FAULTS: dict[tuple[str, str], Fault] = {}


def fault(bed: str, name: str = "", **about: Any) -> Callable:
    """Register a planter, or an estimator that takes the place of the correct one and reports its own value."""

    def register(plant: Callable) -> Callable:
        title = name or plant.__name__.replace("_", " ")
        change = plant
        if list(inspect.signature(plant).parameters)[:2] == ["model", "x"]:
            change = lambda base: {"estimator": plant, "reported": plant if bed == "elbo" else base["reported"]}
        FAULTS[bed, title] = Fault(title, bed, change, **about)
        return plant

    return register
