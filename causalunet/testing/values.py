"""What fills and interventions have in common: they are values, known by a name and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from causalunet.design.limits import shown
from causalunet.registry import Registry

__all__ = ["registered", "round_trip"]


def registered(value: Any, registry: Registry[Any], attribute: str) -> Iterator[str]:
    """Tell if a value's class is not the one that its name stands for.

    Parameters
    ----------
    value : Fill or Intervention
    registry : Registry
    attribute : str
        Of the class, with the name.

    Raises
    ------
    SpecError
        It has no name at all.
    """
    kind, name = type(value), getattr(value, attribute)
    registry.check_named(value, attribute, name)
    if registry.get(name) is not kind:
        yield (
            f"{kind.__module__}.{kind.__name__} is not what the {registry.what} {shown(name)} stands for, and no study "
            f"with it could be read back. Give the class itself {attribute}: ClassVar[str] = ..., of its own."
        )


def round_trip(value: Any, read: Callable[[Any], Any]) -> Iterator[str]:
    """Tell if a value does not come back from JSON as it was.

    Parameters
    ----------
    value : Fill or Intervention
    read : callable
        Makes one of what its ``to_json()`` gave.
    """
    owner = type(value).__name__
    try:
        hash(value)
    except TypeError as error:
        yield f"it has no hash ({error}). Let the class be a dataclass(frozen=True) with tuples for lists."
        return
    try:
        text = json.dumps(value.to_json(), allow_nan=False)
    except Exception as error:  # whatever a field of another type ends in
        yield (
            f"it cannot be written as JSON ({type(error).__name__}: {error!s:.200}). Let fields be finite numbers or "
            f"text, or let {owner} write and read others itself."
        )
        return
    again = read(json.loads(text))
    if again != value or type(again) is not type(value) or again.to_json() != value.to_json():
        yield (
            f"it came back from JSON as {shown(again)}, and was {shown(value)}. All that it depends on has to be a "
            "field of the dataclass, and __post_init__ has to make of what JSON gives, such as lists, what was written."
        )
    elif hash(again) != hash(value):
        yield "two equal ones have different hashes. Let dataclass(frozen=True) make __eq__ and __hash__."
