"""Experiments as data: what is run, measured, kept and gone on with."""

from vaebench.experiments.experiment import Arm, ComponentSpec, Experiment, Measures, grid
from vaebench.experiments.running import Interrupted, Progress, run
from vaebench.experiments.storage import BusyError, ResultDirectory

__all__ = [
    "Arm",
    "BusyError",
    "ComponentSpec",
    "Experiment",
    "Interrupted",
    "Measures",
    "Progress",
    "ResultDirectory",
    "grid",
    "run",
]
