"""The sweeps of a study: interventions that are alike in everything but when they start."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import xarray as xr

from causalunet.analysis.selection import intervention_columns, outcomes
from causalunet.design.families import alike_but_for
from causalunet.design.windows import Window, joined
from causalunet.dims import INTERVENTION
from causalunet.errors import StoreError

__all__ = ["describe", "edited_windows", "named_selections", "sweeps"]

_SHAPE = ("length", "cuts", "relax")


def sweeps(results: xr.DataTree | xr.Dataset) -> dict[str, dict[str, Any]]:
    """Find every sweep over the start step, null interventions left out.

    Parameters
    ----------
    results : xarray.DataTree or Dataset
        Or their outcomes.

    Returns
    -------
    dict
        Name to selection, in the order of the study, for `curve` and the figures. Lengths are part of the name where
        sweeps differ in nothing else.
    """
    dataset = outcomes(results)
    columns = intervention_columns(dataset)
    specs = [json.loads(str(spec)) for spec in dataset["spec"].values]
    groups = alike_but_for(specs, "start")
    firsts = [group[0] for group in groups]
    names = _names([(describe(specs[at]), {name: int(columns[name][at]) for name in _SHAPE}) for at in firsts])
    labels = dataset[INTERVENTION].values
    return {
        name: {INTERVENTION: [str(labels[position]) for position in positions]}
        for name, positions in zip(names, groups, strict=True)
    }


def named_selections(results: xr.DataTree, selections: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Read what figures and tables take as selections.

    Parameters
    ----------
    results : xarray.DataTree
    selections : mapping or None
        Names to selections; or one selection, which is named by its values; or None for all `sweeps`.

    Returns
    -------
    dict
        Name to selection.

    Raises
    ------
    StoreError
        All sweeps are asked for, and there is none.
    """
    if selections is None:
        found = sweeps(results)
        if not found:
            raise StoreError("The study has null interventions only; there is no sweep to show. Name a selection.")
        return dict(found)
    if selections and all(isinstance(value, Mapping) for value in selections.values()):
        return dict(selections)
    words = (str(value) if name in ("kind", INTERVENTION) else f"{name}={value}" for name, value in selections.items())
    return {" ".join(words): selections}


def describe(spec: Mapping[str, Any]) -> str:
    """Kind and content of a specification, without its windows."""
    configuration = spec["configuration"]
    if "parts" in configuration:
        return " + ".join(describe(part) for part in configuration["parts"])
    words = [str(spec["name"])]
    for name, value in configuration.items():
        if name == "fill":
            words.append(" ".join(map(str, (value["name"], *value["configuration"].values()))))
        elif name == "component":
            words.append(str(value))
        elif name not in ("window", "label") and (name, value) != ("branch", "both"):
            words.append(f"{name}={value}")
    return " ".join(words)


def edited_windows(spec: Mapping[str, Any]) -> tuple[Window, ...]:
    """The windows that a stored intervention edits, in the order of the run; those of all parts of a composition."""
    configuration = spec["configuration"]
    own = [Window(*entry) for entry in configuration.get("window") or ()]
    return joined([*own, *(window for part in configuration.get("parts") or () for window in edited_windows(part))])


def _names(groups: list[tuple[str, dict[str, int]]]) -> list[str]:
    names = []
    for text, shape in groups:
        twins = [other for words, other in groups if words == text]
        told = [f"{name}={shape[name]}" for name in _SHAPE if len({twin[name] for twin in twins}) > 1]
        names.append(" ".join([text, *told]))
    doubled = {name for name, n in Counter(names).items() if n > 1}
    return [f"{name} ({position})" if name in doubled else name for position, name in enumerate(names)]
