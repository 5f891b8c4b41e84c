"""Experiments as data: what is run, measured, kept and gone on with."""

from vaebench.experiments.experiment import Arm, Experiment, Measures, Part, grid
from vaebench.experiments.running import Interrupted, Progress, run
from vaebench.experiments.storage import BusyError, Place

__all__ = ["Arm", "BusyError", "Experiment", "Interrupted", "Measures", "Part", "Place", "Progress", "grid", "run"]
