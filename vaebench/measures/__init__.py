"""What is measured of a gradient or a model, each with its standard error or exactly.

`moments` gathers gradient replicates, `probes` computes from them (|grad f|^2, variance, SNR, curvature), `likelihood`
estimates log p(x) by many samples, `cost` counts FLOPs, operations and bytes.
"""
