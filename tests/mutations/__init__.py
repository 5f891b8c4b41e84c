"""Small faults in the package, and the tests that must see them: `python -m tests.mutations`."""
