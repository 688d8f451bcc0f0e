"""Interventions of a study by what they can be picked by: kind, depth, place, what else, length and start."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from causalunet.analysis.selection import intervention_columns
from causalunet.analysis.sweeps import describe
from causalunet.dims import INTERVENTION

__all__ = ["FIELDS", "Row", "nearest", "options", "read_rows"]

FIELDS = ("kind", "depth", "place", "variant", "length", "start")
"""In the order in which they are picked: what one can be depends on those before it."""

_USUAL = {"branch": ("", "both"), "view": ("", "whole"), "fill": ("",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One intervention.

    Parameters
    ----------
    label : str
        That tells it from all others.
    kind : str
        Name of its class.
    depth : str
        Such as ``bottom 2``; empty where it names none.
    place : str
        Component that it edits; empty where it names none.
    variant : str
        What else it is, such as its fill.
    length, start : int
        Of its first window, in steps.
    """

    label: str
    kind: str
    depth: str
    place: str
    variant: str
    length: int
    start: int


def read_rows(outcomes: xr.Dataset) -> tuple[Row, ...]:
    """Read the interventions of a study, in its order; no two of them have all of `FIELDS` in common."""
    columns = {name: values.tolist() for name, values in intervention_columns(outcomes).items()}
    specs = [json.loads(str(spec)) for spec in outcomes["spec"].values]
    rows = [
        Row(
            label=str(label),
            kind=str(columns["kind"][at]),
            depth=_depth(columns, at),
            place=str(columns["component"][at]),
            variant=_variant(columns, at),
            length=int(columns["length"][at]),
            start=int(columns["start"][at]),
        )
        for at, label in enumerate(outcomes[INTERVENTION].values)
    ]
    rows = _apart(rows, [describe(spec) for spec in specs])
    return tuple(_apart(rows, [row.label for row in rows]))


def options(rows: tuple[Row, ...], row: Row, field: str) -> list[Any]:
    """What a field can be for interventions that agree with one in all fields before it."""
    found = list(dict.fromkeys(getattr(one, field) for one in _agreeing(rows, row, field)))
    if field in ("length", "start"):
        return sorted(found, reverse=field == "start")
    return sorted(found, key=lambda text: (len(text), text)) if field == "depth" else found


def nearest(rows: tuple[Row, ...], row: Row, field: str, value: Any) -> Row:
    """The intervention with a field as asked, and as alike as any in the fields after it."""
    fitting = [one for one in _agreeing(rows, row, field) if getattr(one, field) == value]
    later = FIELDS[FIELDS.index(field) + 1 :]
    return min(fitting, key=lambda one: [_distance(getattr(one, name), getattr(row, name)) for name in later])


def _agreeing(rows: tuple[Row, ...], row: Row, field: str) -> list[Row]:
    before = FIELDS[: FIELDS.index(field)]
    return [one for one in rows if all(getattr(one, name) == getattr(row, name) for name in before)]


def _distance(one: Any, other: Any) -> int:
    return abs(one - other) if isinstance(one, int) else int(one != other)


def _apart(rows: list[Row], words: list[str]) -> list[Row]:
    """Where interventions have all in common, tell them apart by words of each."""
    counts = Counter(_content(row) for row in rows)
    twice = {_content(row)[:-1] for row in rows if counts[_content(row)] > 1}  # whatever their start, to stay sweeps
    return [
        replace(row, variant=word) if _content(row)[:-1] in twice else row
        for row, word in zip(rows, words, strict=True)
    ]


def _content(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in FIELDS)


def _depth(columns: dict[str, list[Any]], at: int) -> str:
    return ", ".join(f"{name} {columns[name][at]}" for name in ("bottom", "top") if columns[name][at])


def _variant(columns: dict[str, list[Any]], at: int) -> str:
    words = [str(columns[name][at]) for name, usual in _USUAL.items() if columns[name][at] not in usual]
    cuts, relax = columns["cuts"][at], columns["relax"][at]
    if cuts > 1:
        words.append(f"{cuts} cuts, {relax} steps between")
    return ", ".join(words)
