"""Families: interventions that are alike in everything but one property of their windows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from causalunet.design.interventions import Intervention
from causalunet.errors import SpecError

__all__ = ["Axis", "Family", "families"]

Axis = Literal["start", "length", "relax"]
"""What the members of a family differ in."""

_COMMON = ("top", "bottom", "start", "length", "cuts", "relax")


@dataclass(frozen=True, slots=True)
class Family:
    """Interventions that differ along one axis, from easy to hard.

    Early starts, long windows and short relaxations count as hard: more of the image is at stake. That need not hold:
    top skip connections matter most at the end of a run.

    Parameters
    ----------
    name : str
    members : tuple of int
        Indices among the interventions given.
    values : tuple of int
        Along the axis, in the same order.
    common : dict
        Coordinates that all members share, such as kind and bottom.
    """

    name: str
    members: tuple[int, ...]
    values: tuple[int, ...]
    common: dict[str, str | int]


def families(interventions: Sequence[Intervention], by: Axis) -> tuple[Family, ...]:
    """Sort interventions into families; null interventions are left out, and whatever has no such property.

    Parameters
    ----------
    interventions : sequence of Intervention
    by : {"start", "length", "relax"}
        "start" takes any windows, moved as a whole. "length" and "relax" take interventions with one field ``window``:
        single windows of one start; and windows made by `cut_relax_cut` of one start, length and number of cuts, with
        the single window as long as all cuts together for a relaxation of 0.

    Returns
    -------
    tuple of Family
        In the order of their first members; of at least two members each.

    Raises
    ------
    SpecError
        The axis is unknown, or there is no family along it.
    """
    if by not in get_args(Axis):
        raise SpecError(f"Interventions are not searched by {by!r}; by any of {', '.join(get_args(Axis))}.")
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(interventions):
        if item.kind != "null" and (by == "start" or item.kind != "composition"):
            key = _without(item.to_json(), by, max(item.steps))
            groups.setdefault(json.dumps(key, sort_keys=True), []).append(index)
    if by == "relax":
        groups = _with_joined_cuts(groups)
    found = tuple(_family(interventions, members, by) for members in groups.values() if len(members) > 1)
    if not found:
        raise SpecError(
            f"The interventions have no family along {by!r}: no two of them are alike in everything else. "
            "Give for instance *sweep(AblateBlock, bottom=4, start=range(50, 4, -1), length=5)."
        )
    doubled = {name for name, n in Counter(family.name for family in found).items() if n > 1}
    return tuple(
        Family(f"{one.name} ({interventions[one.members[0]].label} ...)", one.members, one.values, one.common)
        if one.name in doubled
        else one
        for one in found
    )


def _family(interventions: Sequence[Intervention], members: Sequence[int], by: Axis) -> Family:
    rows = {index: interventions[index].coordinates() for index in members}
    ordered = sorted(members, key=lambda index: int(rows[index][by]), reverse=by == "relax")
    first, *others = (rows[index] for index in ordered)
    kind = str(first["kind"])
    common = {name: first[name] for name in _COMMON if name != by and all(row[name] == first[name] for row in others)}
    words = [f"{name}={value}" for name, value in common.items() if value and (name, value) != ("cuts", 1)]
    values = tuple(int(rows[index][by]) for index in ordered)
    return Family(" ".join([kind, *words]), tuple(ordered), values, {"kind": kind, **common})


def _without(spec: Any, by: Axis, start: int) -> Any:
    """The specification without labels and without what its windows differ in along an axis."""
    if isinstance(spec, dict):
        kept = {name: value for name, value in spec.items() if name != "label"}
        return {
            name: _shape(value, by, start) if name == "window" else _without(value, by, start)
            for name, value in kept.items()
        }
    return [_without(entry, by, start) for entry in spec] if isinstance(spec, list) else spec


def _shape(windows: list[list[int]], by: Axis, start: int) -> Any:
    first = windows[0][0]
    if by == "start":
        return [[start - begin, length] for begin, length in windows]
    if by == "length":
        return [first] if len(windows) == 1 else windows
    lengths = {length for _, length in windows}
    return [first, *lengths, len(windows)] if len(lengths) == 1 else windows


def _with_joined_cuts(groups: dict[str, list[int]]) -> dict[str, list[int]]:
    """Add to the families of several cuts the single window that is as long as all of them, a relaxation of 0."""
    joined = {}
    for key, members in groups.items():
        spec = json.loads(key)
        first, length, cuts = _cuts(spec)
        if cuts > 1:
            spec["configuration"]["window"] = [first, length * cuts, 1]
            joined[key] = [*members, *groups.get(json.dumps(spec, sort_keys=True), [])]
    return joined


def _cuts(spec: Any) -> tuple[int, int, int]:
    """Start, length and number of cuts; a number of 0 where the cuts are not alike."""
    window = spec["configuration"].get("window", [[]])
    first, length, cuts = window if all(isinstance(entry, int) for entry in window) else (0, 0, 0)
    return first, length, cuts
