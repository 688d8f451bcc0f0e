"""Values that are written as a name and its configuration: fills, views, outcomes, samplers, guidance, starts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from causalunet.design.limits import check_keys, plain_number, shown
from causalunet.errors import SpecError
from causalunet.registry import Registry

__all__ = ["class_named", "read_named", "without_none", "write_named"]

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
        raise SpecError(f"{shown(value)} is not {_a(what)}; known {what}s: {', '.join(registry)}.")
    check_keys(_a(what).capitalize(), value, ("name", "configuration"))
    configuration = value.get("configuration", {})
    told = f"{what.capitalize()} {name!r} cannot be read"
    check_keys(f"{told}: its configuration", configuration, [entry.name for entry in fields(kind)])
    try:
        made: _T = kind(**configuration)
    except TypeError as error:
        raise SpecError(f"{told} from {shown(value)}: {error!s:.200}.") from error
    return made


def class_named(registry: Registry[type[_T]], value: Any) -> tuple[type[_T], dict[str, Any]]:
    """Class and configuration of ``{"name": ..., "configuration": {...}}``, for those who make the value themselves.

    Parameters
    ----------
    registry : Registry
        Of dataclasses by name.
    value : JSON value

    Raises
    ------
    SpecError
        The name is not registered, or the configuration has what is no field of the class.
    """
    what = registry.what
    check_keys(_a(what).capitalize(), value, ("name", "configuration"))
    kind: Any = registry.get(value.get("name"))
    if kind is None:
        raise SpecError(f"{what.capitalize()} {shown(value.get('name'))} is not known; known: {', '.join(registry)}.")
    configuration = value.get("configuration")
    check_keys(f"The {what} cannot be read: its configuration", configuration, [entry.name for entry in fields(kind)])
    return kind, configuration


def write_named(value: Any) -> dict[str, Any]:
    """Write a dataclass with a ``name`` as ``{"name": ..., "configuration": {...}}``, its numbers as plain ones."""
    values = {entry.name: plain_number(getattr(value, entry.name)) for entry in fields(value)}
    return {"name": value.name, "configuration": values}


def without_none(written: dict[str, Any]) -> dict[str, Any]:
    """What `write_named` wrote, without what is None: values are written as before they had such fields."""
    given = {name: value for name, value in written["configuration"].items() if value is not None}
    return {**written, "configuration": given}


def _a(what: str) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
