"""Interventions of a study that differ in one number of theirs only, found for figures along that number."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.selection import intervention_columns, outcomes
from causalunet.analysis.sweeps import sweeps
from causalunet.dims import INTERVENTION
from causalunet.errors import SpecError, StoreError

__all__ = ["series_along"]

_NUMBERS = ("top", "bottom", "start", "length", "cuts", "relax")


def series_along(results: xr.DataTree, by: str, *, fewest: int = 3, most: int = 6) -> dict[str, dict[str, Any]]:
    """Find interventions that are alike in everything but one number of theirs.

    Parameters
    ----------
    results : xarray.DataTree
    by : str
        The number: "top", "bottom", "start", "length", "cuts" or "relax". Along "relax", the one window into which
        cuts without relaxation join counts as relaxation 0.
    fewest : int
        Values that a series has at least.
    most : int
        Series found at most; where there are more, as many, spread evenly over them in the order of the study.

    Returns
    -------
    dict
        Name to selection, a list of labels in rising order of ``by``.

    Raises
    ------
    SpecError
        ``by`` is not such a number.
    StoreError
        The study has no such series.
    """
    if by not in _NUMBERS:
        raise SpecError(f"There are no series along {by!r}; there may be along {', '.join(_NUMBERS)}.")
    found = [(key, members) for key, members in _groups(results, by).items() if len(members) >= fewest]
    if not found:
        raise StoreError(
            f"The study has no {fewest} interventions that differ in {by} only. Name the interventions to draw, "
            "such as {'blocks': {'intervention': [label, ...]}}, or add a sweep to the study."
        )
    spread = np.linspace(0, len(found) - 1, min(len(found), most)).round().astype(int)
    return {
        _name(*key): {INTERVENTION: [label for _, label in sorted(members.items())]}
        for key, members in (found[int(position)] for position in spread)
    }


_Key = tuple[str, tuple[tuple[str, int], ...]]
"""What a series has in common: content, and its numbers by name."""


def _groups(results: xr.DataTree, by: str) -> dict[_Key, dict[int, str]]:
    """Labels of interventions by value, grouped by what else they are."""
    dataset = outcomes(results)
    columns = intervention_columns(dataset)
    positions = {str(label): position for position, label in enumerate(dataset[INTERVENTION].values)}
    groups: dict[_Key, dict[int, str]] = {}
    for sweep, selection in sweeps(results).items():
        # The name of a sweep says its content; numbers that vary within a series are taken out of it.
        content = " ".join(word for word in sweep.split() if word.partition("=")[0] not in _NUMBERS)
        for label in selection[INTERVENTION]:
            numbers = {name: int(columns[name][positions[label]]) for name in _NUMBERS}
            common = tuple((name, value) for name, value in numbers.items() if name != by)
            groups.setdefault((content, common), {})[numbers[by]] = label
    return _with_joined(groups) if by == "relax" else groups


def _with_joined(groups: dict[_Key, dict[int, str]]) -> dict[_Key, dict[int, str]]:
    """Series along relaxation, begun by the one window that cuts without relaxation join into."""
    apart = {key: dict(members) for key, members in groups.items() if dict(key[1])["cuts"] > 1}
    for (content, common), members in apart.items():
        numbers = dict(common)
        numbers |= {"length": numbers["cuts"] * numbers["length"], "cuts": 1}
        joined = groups.get((content, tuple(numbers.items())), {})
        if joined:
            members[0] = next(iter(joined.values()))
    return apart


def _name(content: str, common: tuple[tuple[str, int], ...]) -> str:
    words = {"start": "from step {}", "length": "length {}", "relax": "relaxation {}", "cuts": "{} cuts"}
    told = [
        words.get(name, f"{name}={{}}").format(value)
        for name, value in common
        if value and (name, value) != ("cuts", 1)
    ]
    return ", ".join([content, *told])
