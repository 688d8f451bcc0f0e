"""Making the arrays of a store: variables and coordinates, uncompressed and with checksums."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from causalunet.design.limits import shown
from causalunet.dims import STEP
from causalunet.errors import SpecError
from causalunet.results.guard.checked_store import dims_of
from causalunet.results.meaning.declaration import OUTCOMES, DeclaredOutcome
from causalunet.results.meaning.layout import Coordinate, StoredArray
from causalunet.results.meaning.schema import told_of

__all__ = ["arrays_beside", "coordinates_beside", "make_array", "write_coordinate"]


def make_array(root: zarr.Group, array: StoredArray) -> zarr.Array[Any]:
    """Make the array of a variable; nothing is written into it."""
    text, variable = array.dtype == "str", array.variable
    return root.create_array(
        array.path,
        shape=array.shape,
        chunks=array.chunks,
        dtype=str if text else array.dtype,
        compressors=[Crc32cCodec()],
        fill_value="" if text else np.nan if array.dtype.startswith("float") else 0,
        dimension_names=variable.dims,
        attributes={**told_of(variable)},
        config={"write_empty_chunks": True},
    )


def write_coordinate(root: zarr.Group, path: str, item: Coordinate, *, fresh: bool = False) -> None:
    """Write a coordinate whole; one that is there, which none is in a fresh store, grows and may get another type."""
    text, found = item.values.dtype == object, None
    if not fresh:
        with zarr.config.set({"array.write_empty_chunks": True}):  # of an array that is opened, and not made
            found = root.get(path)
    if isinstance(found, zarr.Array) and not _holds(found, item):  # whole numbers were enough, and are not any more
        del root[path]
        found = None
    if not isinstance(found, zarr.Array):
        found = root.create_array(
            path,
            shape=item.values.shape,
            chunks=(max(len(item.values), 1),),
            dtype=str if text else item.values.dtype,
            compressors=[Crc32cCodec()],
            dimension_names=(item.dim,),
            config={"write_empty_chunks": True},
        )
    if found.shape != item.values.shape:
        found.resize(item.values.shape)
    found[...] = item.values.astype(str) if text else item.values


def arrays_beside(root: zarr.Group, outcome: DeclaredOutcome) -> Iterator[StoredArray]:
    """Arrays of an outcome that is added to a store, as large as what is there.

    Raises
    ------
    SpecError
        A variable lies along a dimension of which the store cannot tell the length.
    """
    cells = _arrays(root, OUTCOMES)["status"]
    sizes = {one.name: len(one.labels) for one in outcome.brings}
    for group in ("baseline", "trajectory", OUTCOMES):
        for array in _arrays(root, group).values():
            sizes = {**dict(zip(dims_of(array), array.shape, strict=True)), **sizes}
    chunks = dict(zip(dims_of(cells), cells.chunks, strict=True))
    for variable in outcome.all:
        if lacking := [dim for dim in variable.dims if dim not in sizes]:
            raise SpecError(
                f"The outcome {outcome.name!r} has the dimension {lacking[0]!r}, which this store has not. Let the "
                f"outcome bring it, or leave it out; there are {', '.join(sizes)}."
            )
        yield StoredArray(
            path=variable.path,
            variable=variable,
            shape=tuple(sizes[dim] for dim in variable.dims),
            chunks=tuple(chunks.get(dim, sizes[dim]) for dim in variable.dims),
            dtype=variable.dtype,
        )


def coordinates_beside(root: zarr.Group, outcome: DeclaredOutcome) -> Iterator[Coordinate]:
    """Coordinates of dimensions that the group of outcomes gets by an outcome: labels that it brings, and steps.

    Raises
    ------
    SpecError
        It brings a dimension that is there, with other labels.
    """
    there = _arrays(root, OUTCOMES)
    has = {dim for array in there.values() for dim in dims_of(array)}
    for one in outcome.brings:
        known = tuple(np.asarray(there[one.name][...]).tolist()) if one.name in there else None
        if known is None:
            yield Coordinate(one.name, one.name, np.array(one.labels, dtype=object))
        elif known != one.labels:
            raise SpecError(
                f"The outcome {outcome.name!r} brings the dimension {one.name!r} with the labels {shown(one.labels)}; "
                f"in this store it has {shown(known)}. Give it a name of its own."
            )
    if STEP not in has and any(STEP in variable.dims for variable in outcome.variables):
        for name, array in _arrays(root, "trajectory").items():
            if dims_of(array) == (STEP,):
                values = np.asarray(array[...])
                yield Coordinate(name, STEP, values.astype(object) if values.dtype.kind in "TOU" else values)


def _arrays(root: zarr.Group, group: str) -> dict[str, zarr.Array[Any]]:
    found = root[group]
    return dict(found.arrays()) if isinstance(found, zarr.Group) else {}


def _holds(array: zarr.Array[Any], item: Coordinate) -> bool:
    """Whether an array is of the type of a coordinate."""
    if item.values.dtype == object:
        return array.dtype.kind in "TOU"
    return array.dtype == item.values.dtype
