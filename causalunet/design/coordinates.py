"""What results can be selected by, checked where a kind of intervention says it in its own way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from causalunet.design.interventions import Composition, Edit, Intervention
from causalunet.design.limits import COORDINATE_NAME, LARGEST, MOST_LABEL, check_text, is_integer, plain_number, shown
from causalunet.design.selectors import SELECTORS, selectors
from causalunet.dims import DIMS, LATENTS
from causalunet.errors import SpecError
from causalunet.registry import is_own

__all__ = ["MISSING_OF", "check_coordinates", "check_together", "coordinate_columns", "coordinates_of"]

_COUNTS = ("top", "bottom", "start", "length", "cuts", "relax")
_TAKEN = {"spec", "status", *DIMS, *LATENTS} - {*SELECTORS}
"""Names that mean something else in a store."""
MISSING_OF: dict[str, Any] = {"bool": False, "int64": 0, "float64": math.nan, "str": ""}
"""By type, what interventions have that do not say a coordinate."""


def check_coordinates(item: Intervention) -> None:
    """Check that a store can hold the coordinates of an intervention.

    Those of the package's own kinds are not looked at: studies have thousands.

    Raises
    ------
    SpecError
        They lack some of those that every intervention has, or are of types that cannot be stored.
    """
    if _only_own(item):
        return
    if isinstance(item, Composition):
        for part in item.parts:
            check_coordinates(part)
        return
    found: Any = item.coordinates()
    if not isinstance(found, dict):
        raise SpecError(f"coordinates() of {type(item).__name__} gave {shown(found)}, which is no dict of coordinates.")
    own = {"kind": item.kind, "label": item.label, "digest": item.digest}
    wrong = [name for name in own if found.get(name) != own[name]]
    wrong += [name for name in _COUNTS if not _is_count(found.get(name))]
    wrong += [name for name in (*SELECTORS, "view") if not isinstance(found.get(name, ""), str)]
    others = [name for name in found if name not in (*own, *_COUNTS)]
    wrong += [str(name) for name in others if not _is_name(name) or not _type_of(found[name])]
    if wrong:
        raise SpecError(
            f"{type(item).__name__} has the coordinates {shown(found)}, and a store cannot hold {', '.join(wrong)} so. "
            f"coordinates() gives {', '.join(own)} of the intervention itself, integers of at least 0 for "
            f"{', '.join(_COUNTS)}, and whatever else results are to be selected by: a text, number or truth value "
            "under a name of letters, digits and underscores that stands for nothing else."
        )


def check_together(items: Iterable[Intervention]) -> None:
    """Check that the coordinates of all interventions of a study go together.

    Raises
    ------
    SpecError
        One is text for some and a number for others.
    """
    coordinate_columns(item for item in items if not _only_own(item))


def coordinates_of(item: Intervention, edits: Iterable[Edit] | None = None) -> dict[str, Any]:
    """All that an intervention can be selected by: what it says itself, and its component, fill, branch and view.

    A sum has what its parts say, where all that say it agree. Its edits are asked for unless they are given.
    """
    views = {edit.view.words for edit in (item.edits() if edits is None else edits)}
    said = {**selectors(item.to_json()), "view": views.pop() if len(views) == 1 else "", **item.coordinates()}
    if not isinstance(item, Composition):
        return said
    of_parts: dict[str, list[Any]] = {}
    for part in item.parts:
        for name, value in coordinates_of(part).items():
            of_parts.setdefault(name, []).append(value)
    return {**said, **{name: values[0] for name, values in of_parts.items() if name not in said and _alike(values)}}


def coordinate_columns(
    items: Iterable[Intervention], edits: Iterable[Iterable[Edit]] | None = None
) -> dict[str, tuple[str, list[Any]]]:
    """Coordinates of several interventions, with the type that holds them all.

    Parameters
    ----------
    items : iterable of Intervention
    edits : iterable of iterable of Edit, optional
        Of each, where they are known.

    Returns
    -------
    dict of str to (str, list)
        By name. Interventions that do not say a coordinate have 0, NaN, False or no text.

    Raises
    ------
    SpecError
        One is text for some and a number for others.
    """
    rows = [coordinates_of(*both) for both in (zip(items) if edits is None else zip(items, edits, strict=True))]
    types: dict[str, dict[str, str]] = {}
    for row in rows:
        for name, value in row.items():
            types.setdefault(name, {}).setdefault(_type_of(value), str(row["label"]))
    columns = {}
    for name, found in types.items():
        kind = "float64" if found.keys() == {"int64", "float64"} else next(iter(found))
        if len(found) > 1 and kind != "float64":
            told = " and ".join(f"{kind} for {shown(label)}" for kind, label in found.items())
            raise SpecError(f"The coordinate {name!r} is {told}. Let coordinates() of all kinds give one type.")
        columns[name] = kind, [_as(kind, row.get(name, MISSING_OF[kind])) for row in rows]
    return columns


def _only_own(item: Intervention) -> bool:
    """Whether an intervention, and all that it is made of, is of the package's own kinds."""
    if isinstance(item, Composition):
        return all(map(_only_own, item.parts))
    return is_own(type(item))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and COORDINATE_NAME.fullmatch(name) is not None and name not in _TAKEN


def _type_of(value: Any) -> str:
    """Type that a store holds a value in; empty if it holds none such."""
    value = plain_number(value)
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        try:
            check_text("A coordinate", "text", value, MOST_LABEL)
        except SpecError:
            return ""
        return "str"
    if is_integer(value):
        return "int64" if abs(value) <= LARGEST else ""
    return "float64" if isinstance(value, float) else ""


def _as(kind: str, value: Any) -> Any:
    value = plain_number(value)
    return float(value) if kind == "float64" else value


def _alike(values: list[Any]) -> bool:
    return all(value == values[0] for value in values)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and is_integer(value) and 0 <= value <= LARGEST
