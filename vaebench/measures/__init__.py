"""What is measured of a gradient or a model, each with its standard error or exactly.

`moments` gathers gradient replicates, `probes` computes from them (|grad f|^2, variance, SNR, curvature), `likelihood`
estimates log p(x) by many samples, `cost` counts FLOPs, operations and bytes.
"""

from vaebench.measures.cost import Cost, clock, count, device_seconds, peak_bytes, saved_bytes
from vaebench.measures.likelihood import log_likelihood
from vaebench.measures.moments import (
    Moments,
    Replicates,
    conditional,
    fresh,
    gather,
    gradient_moments,
    gradients,
    jackknife,
    nested,
    parameter_groups,
    replicates,
)
from vaebench.measures.probes import (
    Split,
    bound,
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
