"""Named parts, open to other packages through entry points."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownNameError(KeyError):
    """A name that no part is registered under; its text names the nearest one that is."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to parts: those registered here and those of other packages.

    Another package adds a part by an entry point, `[project.entry-points."vaebench.estimators"]`; it is
    imported when first asked for, never when listed.

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
        """Make an empty registry.

        Args:
            kind: what the parts are, for messages ("estimator").
            group: the entry-point group that other packages use.
        """
        self.kind = kind
        self.group = group
        self._parts: dict[str, T] = {}

    def register(self, part: Callable) -> Callable:
        """Register a function or class under its own name (a decorator).

        Args:
            part: the function or class.

        Returns:
            The part, unchanged.

        Raises:
            ValueError: if the name is taken.
        """
        name = part.__name__
        if name in self._parts:
            raise ValueError(f"There is already a {self.kind} called {name!r}; choose another name.")
        self._parts[name] = part  # pyright: ignore[reportArgumentType]
        return part

    def __getitem__(self, name: str) -> T:
        if name in self._parts:
            return self._parts[name]
        for point in entry_points(group=self.group, name=name):
            return point.load()
        raise UnknownNameError(self._unknown(name))

    def __iter__(self) -> Iterator[str]:
        own = list(self._parts)
        return iter(own + sorted({p.name for p in entry_points(group=self.group)} - set(own)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _unknown(self, name: str) -> str:
        known = list(self)
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        return f"There is no {self.kind} {name!r}{hint} Known: {', '.join(known)}."
