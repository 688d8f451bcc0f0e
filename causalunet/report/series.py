"""Interventions of a study that differ in one number of theirs only, found for figures along that number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.selection import intervention_columns, outcomes
from causalunet.analysis.sweeps import describe
from causalunet.design.families import alike_but_for
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
    found = [(name, members) for name, members in _groups(results, by) if len(members) >= fewest]
    if not found:
        raise StoreError(
            f"The study has no {fewest} interventions that differ in {by} only. Name the interventions to draw, "
            "such as {'blocks': {'intervention': [label, ...]}}, or add a sweep to the study."
        )
    spread = np.linspace(0, len(found) - 1, min(len(found), most)).round().astype(int)
    return {
        name: {INTERVENTION: [label for _, label in sorted(members.items())]}
        for name, members in (found[int(position)] for position in spread)
    }


def _groups(results: xr.DataTree, by: str) -> Iterator[tuple[str, dict[int, str]]]:
    """Names of groups, and the labels in them by value."""
    dataset = outcomes(results)
    columns, labels = intervention_columns(dataset), dataset[INTERVENTION].values
    specs = [json.loads(str(spec)) for spec in dataset["spec"].values]
    for group in alike_but_for(specs, by):
        first = group[0]
        content = " ".join(word for word in describe(specs[first]).split() if word.partition("=")[0] not in _NUMBERS)
        common = [(name, int(columns[name][first])) for name in _NUMBERS if name != by]
        yield _name(content, common), {int(columns[by][position]): str(labels[position]) for position in group}


def _name(content: str, common: Iterable[tuple[str, int]]) -> str:
    words = {"start": "from step {}", "length": "length {}", "relax": "relaxation {}", "cuts": "{} cuts"}
    told = [
        words.get(name, f"{name}={{}}").format(value)
        for name, value in common
        if value and (name, value) != ("cuts", 1)
    ]
    return ", ".join([content, *told])
