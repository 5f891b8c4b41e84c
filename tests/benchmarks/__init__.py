"""The asv suites run once each, and a small timing set for pytest-benchmark."""
