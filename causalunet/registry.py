"""Registries by name: of fills, of kinds of intervention, of models. A name means one thing in a process.

Other packages announce what they bring as entry points, so that it is found without an import; what is announced is
imported when it is first asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from reprlib import repr as shortly
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from causalunet.errors import CausalUNetError, PluginError, SpecError

__all__ = ["Registry", "is_own"]

_T = TypeVar("_T")

_OWN = "causalunet"
_ORIGINS: WeakKeyDictionary[Any, tuple[str, str]] = WeakKeyDictionary()
"""File or module, and name, of all that was entered, as they were then."""


class Registry(Generic[_T]):
    """What can be asked for by name.

    Parameters
    ----------
    what : str
        Whose names they are, such as "fill".
    group : str
        Group of entry points in which other packages announce theirs. Such a name begins with that of the package and
        a dot, as ``guests.flip`` does.
    error : type of CausalUNetError
        Raised for what cannot be entered, or is not there.
    late : mapping of str to str, optional
        Names of this package's own whose modules are imported when they are first asked for, since they need more than
        the rest does.
    """

    def __init__(
        self,
        what: str,
        group: str,
        error: type[CausalUNetError] = SpecError,
        late: Mapping[str, str] | None = None,
    ) -> None:
        self.what, self.group, self._error, self._late = what, group, error, dict(late or {})
        self._entries: dict[str, _T] = {}

    def register(self, name: Any, entry: _T) -> None:
        """Enter a class or function under a name, for good.

        The same definition may be made again, as when a cell of a notebook is run twice; then the newer one counts.

        Parameters
        ----------
        name : str
        entry : type or callable

        Raises
        ------
        CausalUNetError
            The name is taken, or is no text.
        """
        if not isinstance(name, str) or not name:
            raise self._error(f"{_place(entry)} has {shortly(name)} for the name of a {self.what}; give text.")
        origin, other = _origin(entry), self._entries.get(name)
        if other is not None and _ORIGINS.get(other) != origin:
            raise self._error(
                f"The {self.what} {shortly(name)} is {_place(other)}; results name it so, and cannot tell another from "
                f"it. Give {_place(entry)} a name of its own."
            )
        # Not asked of this package's own: it would search every installed package at the import.
        announced = None if is_own(entry) else _announced(self.group).get(name)
        if announced is not None and _top(entry) != _package(announced):
            raise self._error(
                f"The {self.what} {shortly(name)} is announced by the package {_package(announced)}. Give "
                f"{_place(entry)} a name of its own."
            )
        _ORIGINS[entry] = origin
        self._entries[name] = entry

    def get(self, name: Any) -> _T | None:
        """Find what has a name; None if nothing has.

        Raises
        ------
        PluginError
            A package announces it, and it cannot be imported.
        """
        if not isinstance(name, str):
            return None
        if name not in self._entries and name in self._late:
            self._import(name)
        if name not in self._entries and (announced := _announced(self.group).get(name)) is not None:
            self._load(announced)
        return self._entries.get(name)

    def __getitem__(self, name: str) -> _T:
        """Find what has a name.

        Raises
        ------
        CausalUNetError
            Nothing has it; those that exist are named.
        PluginError
            A package announces it, and it cannot be imported.
        """
        found = self.get(name)
        if found is None:
            raise self._error(f"No {self.what} is called {shortly(name)}; there are {', '.join(self)}.")
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._known

    def __iter__(self) -> Iterator[str]:
        """Names in alphabetical order, those that are only announced among them."""
        return iter(sorted(self._known))

    def __len__(self) -> int:
        return len(self._known)

    @property
    def _known(self) -> set[str]:
        return {*self._entries, *self._late, *_announced(self.group)}

    def check_named(self, value: object, attribute: str, name: str) -> None:
        """Check that an instance is of a class with a name of its own, which a mere base of others lacks.

        Raises
        ------
        CausalUNetError
            It is not.
        """
        if not name:
            owner = type(value).__name__
            raise self._error(
                f"{owner} has no name that results know it by; give the class {attribute}: ClassVar[str] = "
                f"{owner.lower()!r}."
            )

    @contextmanager
    def scoped(self, **changes: _T | None) -> Iterator[None]:
        """Forget afterwards what was entered meanwhile, and have back what was there; for tests.

        Parameters
        ----------
        **changes : type or callable, optional
            Entered by their names for as long, instead of what is there; None takes a name out.
        """
        kept = dict(self._entries)
        for name, entry in changes.items():
            self._entries.pop(name, None)
            if entry is not None:
                self._entries[name] = entry
        try:
            yield
        finally:
            # A module enters what it defines once: what is late and came meanwhile would never come again.
            self._entries = {name: entry for name, entry in self._entries.items() if name in self._late} | kept

    def _import(self, name: str) -> None:
        try:
            import_module(self._late[name])
        except ModuleNotFoundError as error:
            raise PluginError(
                f"The {self.what} {name!r} needs {error.name}, which is not installed. Install the extra: pip install "
                "'causalunet[run]'."
            ) from error

    def _load(self, announced: EntryPoint) -> None:
        name, package = announced.name, _package(announced)
        told = f"The {self.what} {name!r}, which the package {package} announces as {announced.value},"
        if not name.startswith(f"{package}."):
            raise PluginError(f"{told} is not named after the package; there it should be called {package}.{name}.")
        try:
            found = announced.load()
        except Exception as error:
            raise PluginError(f"{told} cannot be imported: {type(error).__name__}: {error!s:.200}.") from error
        if name not in self._entries and not isinstance(found, type):
            self.register(name, found)  # a class has entered itself, a function need not
        if self._entries.get(name) is not found:
            raise PluginError(f"{told} does not go by that name: {_place(found)} is registered under another, or none.")


@cache
def _announced(group: str) -> dict[str, EntryPoint]:
    """What installed packages announce, by name; the first that a search of the path finds counts."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, entry)
    return found


def is_own(entry: object) -> bool:
    """Whether a class or function is this package's own."""
    return _top(entry) == _OWN


def _top(entry: object) -> str:
    return _of(entry, "__module__").partition(".")[0]


def _package(announced: EntryPoint) -> str:
    return announced.module.partition(".")[0]


def _origin(entry: Any) -> tuple[str, str]:
    module = _of(entry, "__module__")
    # Not the qualified name: dataclass(slots=True) makes a class anew, and names where it stands only afterwards.
    return str(getattr(sys.modules.get(module), "__file__", None) or module), _of(entry, "__name__")


def _place(entry: Any) -> str:
    return f"{_of(entry, '__module__')}.{_of(entry, '__name__')}"


def _of(entry: Any, attribute: str) -> str:
    return str(getattr(entry, attribute, type(entry).__qualname__))
