"""Faults planted in test code, and the gates that see them. `python -m tests.convergence.faults` runs them all."""
