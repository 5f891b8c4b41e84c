"""Gradients of other libraries, certified as black boxes.

`protocol` says in NumPy what a box is, `from_pyro` and `from_numpyro` make boxes of programs (extras "pyro" and
"numpyro"), `judging` holds one against a trusted gradient, `certifying` puts the four answers together.
"""

from vaebench.experiments.blackboxes.protocol import BlackBox, Claim, TorchBox, of_model

__all__ = ["BlackBox", "Claim", "TorchBox", "of_model"]
