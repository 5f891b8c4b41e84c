"""What every room may use and nothing here depends on.

`checks` of input, `registry` of named parts, `files` written whole; `statistics` is imported by name: it needs scipy.
"""

from vaebench.support.checks import available_device, one_of, positive_integer, within
from vaebench.support.files import write_whole
from vaebench.support.registry import Registry, UnknownNameError

__all__ = [
    "Registry",
    "UnknownNameError",
    "available_device",
    "one_of",
    "positive_integer",
    "within",
    "write_whole",
]
