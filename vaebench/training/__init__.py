"""Training: one run is a fleet of one.

`schedules` and `optimizers` say how far and where to, `steps` takes a step (eager, or compiled by `compilation`),
`fleet` trains every seed at once, `records`, `trajectory` and `snapshots` are what it hands out and goes on from.
"""
