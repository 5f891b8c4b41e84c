"""Named parts, open to other packages through entry points and to anybody as `package.module:function`."""

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from vaebench.support.texts import escaped, shown

T = TypeVar("T")
MOST_LISTED = 30
DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class UnknownNameError(KeyError):
    """A name that no part is registered under; its text names the nearest one that is."""

    def __str__(self) -> str:
        return str(self.args[0])


class BrokenPartError(ImportError):
    """A part that is there and cannot be imported; its text says which, and why."""


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to parts: those registered here and those of other packages.

    Another package adds a part by an entry point, `[project.entry-points."vaebench.estimators"]`; it is
    imported when first asked for, never when listed. A name with a colon, `package.module:function`, is a part that
    is registered nowhere, and is not listed: see `imported`.

    >>> greetings = Registry("greeting", "vaebench.greetings")
    >>> @greetings.register
    ... def hello(): ...
    >>> list(greetings)
    ['hello']
    >>> greetings["helo"]
    Traceback (most recent call last):
        ...
    vaebench.support.registry.UnknownNameError: There is no greeting 'helo'; did you mean 'hello'? Known: hello.
    """

    def __init__(self, kind: str, group: str):
        """Make an empty registry of a kind of parts, for messages ("estimator"), and of an entry-point group."""
        self.kind = kind
        self.group = group
        self._parts: dict[str, T] = {}

    def register(self, part: Callable) -> Callable:
        """Register a function or class under its own name (a decorator); a name that is taken is a ValueError."""
        name = part.__name__
        if name in self._parts:
            raise ValueError(f"There is already a {self.kind} called {name!r}; choose another name.")
        self._parts[name] = part  # pyright: ignore[reportArgumentType]
        return part

    def __getitem__(self, name: str) -> T:
        if name in self._parts:
            return self._parts[name]
        if isinstance(name, str) and ":" in name:
            return imported(self.kind, name)
        for point in entry_points(group=self.group, name=name):
            try:
                return point.load()
            except (Exception, SystemExit) as trouble:
                raise BrokenPartError(f"The {self.kind} {name!r} of {point.value} {_broke(trouble)}") from trouble
        raise UnknownNameError(f"There is no {self.kind} {shown(name)}{nearest(str(name), self)}")

    def is_own(self, name: str) -> bool:
        """Whether a part is vaebench's own: a pure function, where other people's may remember their calls."""
        return getattr(self._parts.get(name), "__module__", "").startswith("vaebench.")

    def __iter__(self) -> Iterator[str]:
        own = list(self._parts)
        return iter(own + sorted({p.name for p in entry_points(group=self.group)} - set(own)))

    def __len__(self) -> int:
        return len(list(iter(self)))


def imported(kind: str, name: str) -> Any:
    """The function that `package.module:function` names; its module is imported as Python imports any other.

    Returns:
        The function, of a kind such as "estimator", in a module that is installed or lies where Python looks.

    Raises:
        ValueError: if the name is not of that form, is in Python's own library, or does not name something to call.
        UnknownNameError: if there is no such module, or nothing of that name in it.
        BrokenPartError: if the module cannot be imported.
    """
    path, _, attribute = name.partition(":")
    if path.endswith(".py") or "/" in path:
        meant = path.removesuffix(".py").strip("./").replace("/", ".")
        raise ValueError(f"The {kind} {shown(name)} names a file: write its module, as in {f'{meant}:{attribute}'!r}.")
    if not (DOTTED.fullmatch(path) and DOTTED.fullmatch(attribute)):
        raise ValueError(f"The {kind} {shown(name)} must be a name, or package.module:function for one of your own.")
    if path.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f"The {kind} {shown(name)} is a function of Python's own library, not a part.")
    found: Any = _module(kind, name, path)
    for step in attribute.split("."):
        if not hasattr(found, step):
            hint = nearest(step, [known for known in dir(found) if not known.startswith("_")])
            raise UnknownNameError(f"There is no {step!r} in {path}, where the {kind} {name!r} should be{hint}")
        found = getattr(found, step)
    if not callable(found):
        raise ValueError(f"The {kind} {name!r} must be a function, and is {shown(found)}.")
    return found


def _module(kind: str, name: str, path: str) -> Any:
    try:
        return importlib.import_module(path)
    except (Exception, SystemExit) as trouble:
        missing = getattr(trouble, "name", None)
        if isinstance(trouble, ModuleNotFoundError) and missing and f"{path}.".startswith(f"{missing}."):
            where = "install it, or go to the directory that it is in"
            raise UnknownNameError(f"No module named {missing!r}, of the {kind} {name!r}: {where}.") from None
        raise BrokenPartError(f"The {kind} {name!r} {_broke(trouble)}") from trouble


def _broke(trouble: BaseException) -> str:
    return f"cannot be imported ({type(trouble).__name__}: {escaped(str(trouble))})."


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses a name, from its punctuation on: the nearest known one, and all of them."""
    there = list(known)
    near = difflib.get_close_matches(name, there, n=1)
    listed = ", ".join(there[:MOST_LISTED]) + (", ..." if len(there) > MOST_LISTED else "")
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" Known: {listed}."
