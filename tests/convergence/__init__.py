"""What theory says of training, held against training: one benchmark per claim, each with a control that fails.

    pytest tests/convergence --benchmark-json=claims.json

writes every claim's statistic, bound and slack. Claims about one run share it; the first of them pays for it.
"""
