"""What is measured of a gradient or a model, each with its standard error or exactly.

`moments` gathers gradient replicates; `probes` computes from them (|grad f|^2, variance, SNR, curvature) with the
errors of `jackknife`; `likelihood` averages a bound and log p(x) over data; `cost` counts FLOPs, operations and bytes.
"""

from vaebench.measures.cost import Cost, clock, count, device_seconds, peak_bytes, saved_bytes
from vaebench.measures.jackknife import jackknife
from vaebench.measures.likelihood import bound, log_likelihood
from vaebench.measures.moments import (
    Moments,
    Replicates,
    conditional,
    fresh,
    gather,
    gradient_moments,
    gradients,
    nested,
    parameter_groups,
    replicates,
)
from vaebench.measures.probes import (
    Split,
    ess,
    exact_gradient,
    grad_sq,
    gradient_split,
    gradient_variance,
    snr,
    squared_norm,
    top_curvature,
)

__all__ = [
    "Cost",
    "Moments",
    "Replicates",
    "Split",
    "bound",
    "clock",
    "conditional",
    "count",
    "device_seconds",
    "ess",
    "exact_gradient",
    "fresh",
    "gather",
    "grad_sq",
    "gradient_moments",
    "gradient_split",
    "gradient_variance",
    "gradients",
    "jackknife",
    "log_likelihood",
    "nested",
    "parameter_groups",
    "peak_bytes",
    "replicates",
    "saved_bytes",
    "snr",
    "squared_norm",
    "top_curvature",
]
