"""Registries by name: of kinds of intervention, of fills, of models. A name means one thing in a process."""

from __future__ import annotations

import sys
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from causalunet.design.limits import shown
from causalunet.errors import CausalUNetError, SpecError

__all__ = ["check_named", "register_name"]

_T = TypeVar("_T")

_ORIGINS: WeakKeyDictionary[Any, tuple[str, str]] = WeakKeyDictionary()
"""File or module, and name, of all that was entered, as they were then."""


def register_name(
    known: dict[str, _T], what: str, name: Any, entry: _T, error: type[CausalUNetError] = SpecError
) -> None:
    """Enter a class or function under a name, for good.

    The same definition may be made again, as when a cell of a notebook is run twice; then the newer one counts.

    Parameters
    ----------
    known : dict
        The registry.
    what : str
        Whose names they are, such as "fill".
    name : str
    entry : type or callable
    error : type of CausalUNetError
        Raised if it cannot be entered.

    Raises
    ------
    CausalUNetError
        The name is taken, or is no text.
    """
    if not isinstance(name, str) or not name:
        raise error(f"{_place(entry)} has {shown(name)} for the name of a {what}; give text.")
    origin, other = _origin(entry), known.get(name)
    if other is not None and _ORIGINS.get(other) != origin:
        raise error(
            f"The {what} {shown(name)} is {_place(other)}; results name it so, and cannot tell another from it. Give "
            f"{_place(entry)} a name of its own."
        )
    _ORIGINS[entry] = origin
    known[name] = entry


def check_named(value: object, attribute: str, name: str) -> None:
    """Check that an instance is of a class with a name of its own, which a mere base of others lacks.

    Raises
    ------
    SpecError
        It is not.
    """
    if not name:
        owner = type(value).__name__
        raise SpecError(
            f"{owner} has no name that results know it by; give the class {attribute}: ClassVar[str] = "
            f"{owner.lower()!r}."
        )


def _origin(entry: Any) -> tuple[str, str]:
    module = _of(entry, "__module__")
    # Not the qualified name: dataclass(slots=True) makes a class anew, and names where it stands only afterwards.
    return str(getattr(sys.modules.get(module), "__file__", None) or module), _of(entry, "__name__")


def _place(entry: Any) -> str:
    return f"{_of(entry, '__module__')}.{_of(entry, '__name__')}"


def _of(entry: Any, attribute: str) -> str:
    return str(getattr(entry, attribute, type(entry).__qualname__))
