"""vaebench: measure and certify how variational autoencoders train."""

__version__ = "0.2.0"
