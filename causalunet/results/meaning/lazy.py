"""From checked arrays to labelled ones whose values are read when they are asked for."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing
from zarr.core.sync import sync

from causalunet.design.selectors import SELECTORS, selectors
from causalunet.dims import INTERVENTION
from causalunet.errors import DamageError
from causalunet.results.guard.checked_store import Stored, check_specs, dims_of, renewed_digests
from causalunet.results.guard.storage_errors import faults_told
from causalunet.results.meaning.schema import told_of

__all__ = ["datasets_of"]

_AT_ONCE = 64
_MOST_BYTES = 1 << 27
"""Of all coordinates that are read when a store is opened."""
_MOST_TRIED = 1_000


def datasets_of(stored: Stored, where: object) -> dict[str, xr.Dataset]:
    """Build a dataset of every group.

    Coordinates that are selected by are read; all other values are read when they are asked for.

    Parameters
    ----------
    stored : Stored
    where : object
        Whose text names the store.

    Returns
    -------
    dict of str to Dataset
        By path of the group.

    Raises
    ------
    DamageError
        A coordinate cannot be read, is too large, or is not what a study writes.
    """
    declaration = stored.declaration
    along = {one.name for one in declaration.coordinates if one.dim in (one.name, INTERVENTION)} - {"spec"}
    read = [path for path in stored.asynchronous if path == _SPECS or path.rpartition("/")[2] in along]
    values = sync(_loaded({path: stored.asynchronous[path] for path in read}, where))
    check_specs(values[_SPECS].tolist(), where)
    digests = renewed_digests(values[_SPECS].tolist())
    for path in values if digests else ():
        if path.rpartition("/")[2] == "digest":
            values[path][list(digests)] = list(digests.values())
    groups: dict[str, dict[str, xr.Variable]] = {group: {} for group in stored.groups}
    for path, array in stored.arrays.items():
        group, _, name = path.rpartition("/")
        data = values[path] if path in values else indexing.LazilyIndexedArray(StoredValues(array, path, where))
        encoding = {"chunks": array.chunks, "preferred_chunks": dict(zip(dims_of(array), array.chunks, strict=True))}
        groups[group][name] = xr.Variable(dims_of(array), data, dict(array.attrs), encoding)
        if (variable := declaration.variable_at(path)) is not None:
            groups[group][name].attrs.update(told_of(variable))
    told = {} if declaration.coordinate("component", INTERVENTION) else _told_by_specs(values[_SPECS])
    names = {*SELECTORS, *declaration.coordinate_names}
    for variables in groups.values():
        dims = {dim for variable in variables.values() for dim in variable.dims}
        if INTERVENTION in dims:  # the dimension "component" says what was measured
            variables |= {name: variable.copy() for name, variable in told.items() if name not in dims}
    shown = {name: value for name, value in stored.root.items() if name != "declaration"}
    datasets = {"/": xr.Dataset(attrs=shown)}
    for group, variables in groups.items():
        coordinates = {name: variable for name, variable in variables.items() if name in names}
        others = {name: variable for name, variable in variables.items() if name not in names}
        kept = {name: value for name, value in stored.groups[group].items() if name != "coordinates"}
        prepared: Any = xr.Dataset(others, coordinates, kept)
        datasets[f"/{group}"] = xr.open_dataset(prepared, engine=_Prepared)  # keeps what was read once
    return datasets


_SPECS = "outcomes/spec"


def _told_by_specs(texts: NDArray[Any]) -> dict[str, xr.Variable]:
    """Coordinates that are not stored, since the interventions themselves say them."""
    told = [selectors(json.loads(text)) for text in texts]
    return {
        name: xr.Variable((INTERVENTION,), np.array([one[name] for one in told], dtype=texts.dtype))
        for name in SELECTORS
    }


class _Prepared(BackendEntrypoint):
    def open_dataset(self, filename_or_obj: Any, *, drop_variables: Any = None) -> xr.Dataset:
        """Hand back what was prepared."""
        return filename_or_obj


class StoredValues(BackendArray):
    """Values of a stored array, read when they are asked for; what is damaged is named.

    Parameters
    ----------
    array : zarr.Array
    path : str
        ``group/name``.
    where : object
        Whose text names the store.
    """

    def __init__(self, array: zarr.Array[Any], path: str, where: object) -> None:
        self.array, self.path, self.where = array, path, where
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        """Read part of the array."""
        # xarray 2026.9 fails on slices that go down and take nothing.
        parts = (
            slice(0, 0) if _is_empty(part, size) else part for part, size in zip(key.tuple, self.shape, strict=True)
        )
        key = type(key)(tuple(parts))
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        try:
            with faults_told(self.where, f"reading {self.path} from"):
                return np.asarray(self.array.oindex[key] if key else self.array[...])
        except DamageError as error:
            chunk = self._damaged(key)
            if chunk is None:
                raise
            raise DamageError(f"Chunk {chunk} of {self.path} is damaged. {error}") from error

    def _damaged(self, key: tuple[Any, ...]) -> str | None:
        """Name the first chunk of a selection that cannot be read; None if it is not found soon."""
        chunks = self.array.shards or self.array.chunks
        touched = map(_touched, key, self.shape, chunks)
        for place in itertools.islice(itertools.product(*touched), _MOST_TRIED):
            try:
                self.array[tuple(slice(at * chunk, (at + 1) * chunk) for at, chunk in zip(place, chunks, strict=True))]
            except Exception:
                return "/".join(map(str, place))
        return None


def _is_empty(chosen: Any, size: int) -> bool:
    return isinstance(chosen, slice) and not range(*chosen.indices(size))


def _touched(chosen: Any, size: int, chunk: int) -> list[int]:
    """Chunks along one axis that a selection has positions in."""
    if isinstance(chosen, slice):
        chosen = range(*chosen.indices(size))
    return np.unique(np.atleast_1d(np.asarray(chosen, dtype=np.int64)) // chunk).tolist()


async def _loaded(arrays: dict[str, zarr.AsyncArray[Any]], where: object) -> dict[str, NDArray[Any]]:
    """Read arrays whole, many at once."""

    async def size(path: str) -> int:
        array = arrays[path]
        grid = [range(-(-n // chunk)) for n, chunk in zip(array.shape, array.shards or array.chunks, strict=True)]
        total = 0
        for place in itertools.product(*grid):
            with suppress(FileNotFoundError):
                total += await array.store_path.store.getsize(f"{path}/{array.metadata.encode_chunk_key(place)}")
        return total

    async def read(path: str) -> NDArray[Any]:
        with faults_told(where, f"reading {path} from"):
            return np.asarray(await arrays[path].getitem(...))

    with faults_told(where, "reading the coordinates of"):
        sizes = sum(await asyncio.gather(*map(size, arrays)))
    if sizes > _MOST_BYTES:
        raise DamageError(
            f"{where} has {sizes:,} bytes of coordinates, and no study more than {_MOST_BYTES:,}. They are not read, "
            "since they might fill the memory."
        )
    found: dict[str, NDArray[Any]] = {}
    for start in range(0, len(arrays), _AT_ONCE):
        some = list(arrays)[start : start + _AT_ONCE]
        found |= zip(some, await asyncio.gather(*map(read, some)), strict=True)
    return found
