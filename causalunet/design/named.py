"""Reading values that are written as a name and its configuration: fills and views."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from causalunet.design.limits import check_keys, shown
from causalunet.errors import SpecError
from causalunet.registry import Registry

__all__ = ["read_named"]

_T = TypeVar("_T")


def read_named(registry: Registry[type[_T]], value: Any) -> _T:
    """Make a value of ``{"name": ..., "configuration": {...}}``.

    Parameters
    ----------
    registry : Registry
        Of dataclasses by name.
    value : JSON value

    Raises
    ------
    SpecError
        The name is not registered or the configuration does not fit.
    """
    what, name = registry.what, value.get("name") if isinstance(value, dict) else None
    kind: Any = registry.get(name)
    if kind is None:
        raise SpecError(f"{shown(value)} is not a {what}; known {what}s: {', '.join(registry)}.")
    check_keys(f"A {what}", value, ("name", "configuration"))
    configuration = value.get("configuration", {})
    told = f"{what.capitalize()} {name!r} cannot be read"
    check_keys(f"{told}: its configuration", configuration, [entry.name for entry in fields(kind)])
    try:
        made: _T = kind(**configuration)
    except TypeError as error:
        raise SpecError(f"{told} from {shown(value)}: {error!s:.200}.") from error
    return made
