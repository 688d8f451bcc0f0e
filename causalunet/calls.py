"""Calls that do not fit what is called, told with what exists: a misspelt keyword, one too many, one that lacks."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

from causalunet.errors import SpecError

__all__ = ["clear_calls", "hold", "misfit"]

Kind = TypeVar("Kind", bound=type)

_ALIKE = 0.5
"""Share of letters in common from which on a name is taken for a misspelt one."""
_IN_ORDER = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def clear_calls(kind: Kind) -> Kind:
    """Let a class say what it takes when it is called otherwise; a decorator above ``@dataclass``.

    It then raises `SpecError`, where Python raises a bare ``TypeError``.
    """
    made: Any = kind.__init__  # type: ignore[misc]
    takes = signature(made)

    @functools.wraps(made)
    def init(self: Any, *given: Any, **named: Any) -> None:
        try:
            made(self, *given, **named)
        except TypeError:
            told = misfit(type(self).__name__, takes, (self, *given), named)
            if not told:
                raise
            raise SpecError(told) from None

    kind.__init__ = init  # type: ignore[misc]
    return kind


def hold(value: Any, /, **fields: Any) -> None:
    """Set the fields of a frozen dataclass and check them, for an ``__init__`` that takes more than they hold.

    Parameters
    ----------
    value : dataclass
        With a ``__post_init__`` that checks the fields and makes of each what it is declared to be.
    **fields
        As they were given.
    """
    for name, given in fields.items():
        object.__setattr__(value, name, given)
    value.__post_init__()


def misfit(owner: str, takes: Signature, given: Sequence[Any], named: Mapping[str, Any]) -> str:
    """What is wrong with a call, in words; empty if it fits.

    Parameters
    ----------
    owner : str
        What is called.
    takes : Signature
    given : sequence
        Values in order; the first may be ``self``.
    named : mapping of str
        Values by name.
    """
    parameters = [entry for entry in takes.parameters.values() if entry.name != "self"]
    given = given[len(takes.parameters) - len(parameters) :] if "self" in takes.parameters else given
    kinds = {entry.kind for entry in parameters}
    names = [entry.name for entry in parameters if entry.kind in _BY_NAME]
    in_order = [entry.name for entry in parameters if entry.kind in _IN_ORDER]
    listing = f"It takes {', '.join(names)}." if names else "It takes nothing."
    if Parameter.VAR_KEYWORD not in kinds:
        for name in named:
            if name not in names:
                close = get_close_matches(name, names, 1, _ALIKE)
                return f"{owner} has no {name!r:.60}{f'; is {close[0]} meant?' if close else '.'} {listing}"
    if Parameter.VAR_POSITIONAL not in kinds and len(given) > len(in_order):
        if not in_order and names:
            return f"{owner} takes its values by name, such as {names[0]}=; got {len(given)} without one. {listing}"
        return f"{owner} takes at most {len(in_order)} values in order; got {len(given)}. {listing}"
    if doubled := [name for name in in_order[: len(given)] if name in named]:
        return f"{owner} got {doubled[0]} twice, by its place and by its name. {listing}"
    lacking = [
        entry.name
        for entry in parameters
        if entry.kind in (*_IN_ORDER, Parameter.KEYWORD_ONLY)
        and entry.default is Parameter.empty
        and entry.name not in (*in_order[: len(given)], *named)
    ]
    return f"{owner} lacks {', '.join(lacking)}. {listing}" if lacking else ""
