"""The command ``ls``: stores below a folder, or what is in a store. It needs no torch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import xarray as xr

from causalunet.cli.exits import Exit
from causalunet.cli.printing import aligned, complain, folded, moment, one_line, quoted, size, tell
from causalunet.errors import CausalUNetError, StoreError
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Commit
from causalunet.results.meaning.completion import Completion
from causalunet.results.meaning.declaration import general_path
from causalunet.results.meaning.schema import VARIABLES
from causalunet.results.store import open_results

__all__ = ["ls", "stores_below"]

_DEPTH = 4
_MOST_FOLDERS = 20_000
_MARKS = ("zarr.json", "snapshots")
"""What an export has, and a live store."""
_ZIPPED = ".zarr.zip"


def ls(options: argparse.Namespace) -> Exit:
    """List stores, or the variables of one."""
    place = options.place or ("results" if Path("results").is_dir() else ".")
    where = Location.parse(place)
    folder = where.folder
    if folder is None or where.zipped or _is_store(folder):
        return _list_store(place, options)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise StoreError(f"{where} {what}. Give a results store, or a folder that holds some.")
    if options.history or options.at:
        raise StoreError(f"{where} is a folder, not a results store; only a store has a history and tags.")
    return _list_folder(folder, where)


def stores_below(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Results stores and exports in a folder and in those below it, those in one file (``.zarr.zip``) too.

    Links, hidden folders, and what lies inside stores are not followed.
    """
    pending, looked_at = [(folder, 0)], 0
    while pending and looked_at < _MOST_FOLDERS:
        here, level = pending.pop(0)
        looked_at += 1
        if level and _is_store(here):
            yield here
        elif level < depth:
            try:
                with os.scandir(here) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except OSError as error:
                complain(f"{here} cannot be read: {error.strerror}")
                continue
            shown = sorted(one for one in found if not one[0].startswith("."))
            yield from (here / name for name, inner in shown if not inner and name.endswith(_ZIPPED))
            pending += [(here / name, level + 1) for name, inner in shown if inner]


def _is_store(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _MARKS)


def _list_folder(folder: Path, where: Location) -> Exit:
    rows, worst = [("cells", "size", "changed", "model", "study", "store", "tags")], Exit.DONE
    for path in stores_below(folder):
        try:
            completion = Completion.read(path)
        except CausalUNetError as error:
            complain(error)
            worst = Exit.ERROR
            continue
        rows.append(
            (
                f"{completion.cells.complete}/{completion.cells.total}",
                size(completion.size),
                moment(completion.changed) if completion.changed else "-",
                one_line(completion.model, 20),
                one_line(completion.study, 40),
                one_line(path.relative_to(folder)) + ("" if completion.last else " (export)"),
                ", ".join(one_line(tag, 40) for tag in completion.tags),
            )
        )
    if len(rows) > 1:
        shown = len(rows[0]) if any(row[-1] for row in rows[1:]) else len(rows[0]) - 1
        tell("\n".join(aligned([row[:shown] for row in rows], right=(0, 1))))
    elif worst == Exit.DONE:
        tell(f"No results stores in {where}, down to {_DEPTH} folders below it.")
    return worst


def _list_store(place: str, options: argparse.Namespace) -> Exit:
    results = open_results(place, at=options.at)
    if options.history:
        tell("\n".join(aligned([_commit_row(commit) for commit in results.history()])))
        return Exit.DONE
    study = results.attrs.get("study")
    name = study.get("name", "") if isinstance(study, dict) else ""
    tell(f"{results.source.location}: study {quoted(name)}")
    groups = {node.path.strip("/"): node.to_dataset() for node in results.subtree if node.data_vars}
    for group in sorted(groups, key=_place_of_group):
        tell(f"\n{one_line(group)}")
        tell("\n".join(_of_group(group, groups[group])))
    tell("\ncoordinates")
    tell("\n".join(_along(groups.values())))
    return Exit.DONE


def _of_group(group: str, dataset: xr.Dataset) -> Iterator[str]:
    """Two lines per variable."""
    names = [str(name) for name in dataset.data_vars]
    widest = max(map(len, names))
    for name in sorted(names, key=lambda name: _place_of_variable(group, name)):
        array = dataset[name]
        dims = ", ".join(f"{dim} {length:,}" for dim, length in array.sizes.items())
        kind = "text" if array.dtype.kind in "TOU" else str(array.dtype)
        head = f"  {one_line(name).ljust(widest)}  "
        yield folded(f"{kind.ljust(7)}  ({dims})", first=head, rest=" " * (len(head) + 10))
        meaning, units = one_line(array.attrs.get("long_name", "")), one_line(array.attrs.get("units", "1"), 20)
        yield folded(meaning if units == "1" else f"{meaning}, in {units}", first="      ", rest="      ")


def _along(groups: Iterable[xr.Dataset]) -> Iterator[str]:
    """What can be selected by, a line per dimension."""
    found: dict[str, dict[str, None]] = {}
    for dataset in groups:
        for name, coordinate in dataset.coords.items():
            if coordinate.dims:
                found.setdefault(str(coordinate.dims[0]), {})[str(name)] = None
    for dim, names in found.items():
        yield folded(f"{one_line(dim)}: {', '.join(map(one_line, sorted(names)))}", first="  ", rest="      ")


def _place_of_variable(group: str, name: str) -> tuple[int, str]:
    path = general_path(f"{group}/{name}")
    return next((place for place, one in enumerate(VARIABLES) if one.path == path), len(VARIABLES)), name


def _place_of_group(group: str) -> tuple[int, str]:
    """Groups stand in the order of the schema."""
    kind = "activations/*" if group.startswith("activations/") else group
    return next((place for place, one in enumerate(VARIABLES) if one.group == kind), len(VARIABLES)), group


def _commit_row(commit: Commit) -> tuple[str, ...]:
    tags = f"({', '.join(one_line(tag, 40) for tag in commit.tags)})" if commit.tags else ""
    return moment(commit.time), commit.id, one_line(commit.message, 80), tags
