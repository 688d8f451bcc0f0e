"""Families: interventions that are alike in everything but one property of their windows."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from causalunet.design.interventions import Intervention
from causalunet.errors import SpecError

__all__ = ["Axis", "Family", "alike_but_for", "families"]

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
    # Elsewhere than along the start, members are windows or cuts of one part that are longer or further apart.
    chosen = [
        index
        for index, item in enumerate(interventions)
        if by == "start" or (item.kind != "composition" and (by == "relax" or item.coordinates()["cuts"] == 1))
    ]
    groups = alike_but_for([interventions[index].to_json() for index in chosen], by)
    found = tuple(_family(interventions, [chosen[place] for place in group], by) for group in groups if len(group) > 1)
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


def alike_but_for(specs: Sequence[Any], by: str) -> list[list[int]]:
    """Group interventions that are alike in everything but one number of theirs.

    Parameters
    ----------
    specs : sequence of dict
        As of `Intervention.to_json`, and as stores hold them.
    by : str
        "start" moves all windows together; "length", "cuts" and "relax" tell apart windows that are equally long;
        "top" and "bottom" are fields. Along "relax" the one window that is as long as all cuts of a group together
        belongs to it, as a relaxation of 0, and one window alone is in no other group.

    Returns
    -------
    list of list of int
        Positions, in the order of the first of each group; null interventions are in none.
    """
    groups: dict[str, list[int]] = {}
    for position, spec in enumerate(specs):
        if spec["name"] != "null":
            key = _without(spec, by, max(_starts(spec), default=0))
            groups.setdefault(json.dumps(key, sort_keys=True), []).append(position)
    if by == "relax":
        groups = _with_joined_cuts(groups)
    return list(groups.values())


def _starts(spec: Any) -> Iterator[int]:
    configuration = spec["configuration"]
    yield from (start for start, *_ in configuration.get("window") or ())
    for part in configuration.get("parts") or ():
        yield from _starts(part)


def _without(spec: Any, by: str, start: int) -> Any:
    """The specification without labels and without what differs along a number."""
    if isinstance(spec, dict):
        kept = {name: value for name, value in spec.items() if name not in ("label", by)}
        shapes = {
            name: _shape([entry[:2] for entry in value], by, start) if name == "window" else _without(value, by, start)
            for name, value in kept.items()
        }
        stages = {"stage": window[0][2:]} if (window := kept.get("window")) and window[0][2:] else {}
        return shapes | stages
    return [_without(entry, by, start) for entry in spec] if isinstance(spec, list) else spec


def _shape(windows: list[list[int]], by: str, start: int) -> Any:
    (first, length), *others = windows
    if by == "start":
        return [[start - begin, long] for begin, long in windows]
    gaps = [begin - long - after for (begin, long), (after, _) in itertools.pairwise(windows)]
    if any(long != length for _, long in others):
        return windows
    if by == "cuts":
        return [first, length, *gaps[:1]] if len(set(gaps)) <= 1 else windows
    return {"length": [first, *gaps], "relax": [first, length, len(windows)]}.get(by, windows)


def _with_joined_cuts(groups: dict[str, list[int]]) -> dict[str, list[int]]:
    """Add to the groups of several cuts the single window that is as long as all of them, a relaxation of 0."""
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
