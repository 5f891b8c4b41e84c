"""Gradients of other libraries, certified as black boxes.

`protocol` says in NumPy what a box is, `from_pyro`, `from_numpyro` and `from_pythae` make boxes of other libraries'
models (extras of their names), `drawing` draws from one beside a trusted gradient, `judging` holds it against that,
`certifying` puts the four answers together.
"""

from vaebench.experiments.blackboxes.protocol import BackwardBox, BlackBox, Claim, TorchBox, against_model, of_model

__all__ = ["BackwardBox", "BlackBox", "Claim", "TorchBox", "against_model", "of_model"]
