"""Convergence: gates, faults and rates."""
