"""Training: one run is a fleet of one.

`schedules` and `optimizers` say how far and where to, `steps` takes a step (eager, or compiled by `compilation`),
`fleet` trains every seed at once, `records` and `snapshots` are what it hands out and goes on from.
"""

from vaebench.training import optimizers
from vaebench.training.compilation import CompilationError, Compiler, compiled, keep_code
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS, check_elementwise
from vaebench.training.records import Checkpoint, Divergence, State, Step, geometric
from vaebench.training.schedules import Schedule, constant, inverse_sqrt, per_epoch, polynomial
from vaebench.training.snapshots import Snapshot
from vaebench.training.steps import eager, step_taker

__all__ = [
    "OPTIMIZERS",
    "Checkpoint",
    "CompilationError",
    "Compiler",
    "Divergence",
    "Schedule",
    "Snapshot",
    "State",
    "Step",
    "check_elementwise",
    "compiled",
    "constant",
    "eager",
    "geometric",
    "inverse_sqrt",
    "keep_code",
    "optimizers",
    "per_epoch",
    "polynomial",
    "step_taker",
    "train",
]
