"""Mutations of every file that vaebench reads, and what became of them: `python -m tests.fuzz`.

A mutation is *right* if what is read is what the whole file said, *other* if the format has no checksum and what is
read is, by a reader of our own, what the mutated file says, and *refused* if one sentence names the file. Anything
else is a fault: a *wrong* value, a *traceback*, a *hang*, or a file written *outside* of the results.
"""
