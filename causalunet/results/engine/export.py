"""Plain zarr v3 of a results store, for archives and for readers that have only zarr."""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec

from causalunet.errors import StoreError
from causalunet.results.engine.archive import pack
from causalunet.results.engine.location import check_outside
from causalunet.results.guard.checked_store import read_stored
from causalunet.results.guard.storage_errors import faults_told

__all__ = ["export_store", "regions"]

_FILES = 200
"""What a folder has at most where it can: services that share folders, and file systems of clusters, count files."""
_SHARD_BYTES = [1 << bits for bits in range(23, 28)]
"""Sizes of shards to choose from. One is in memory while it is written."""


def export_store(store: Store, where: object, path: Path) -> Path:
    """Copy a store, array by array and shard by shard.

    Parameters
    ----------
    store : zarr Store
    where : object
        Whose text names the store.
    path : Path
        Must not exist. One that ends with ``.zip`` becomes a file, and others a folder.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    StoreError
        It exists.
    DamageError, StorageError
        A chunk cannot be read, or the copy cannot be written; then nothing is left at the path.
    """
    if path.exists():
        raise StoreError(f"{path} exists. An export never writes over anything; give a new path.")
    check_outside(path)
    with faults_told(path, "exporting to"):
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        plain = made / "plain.zarr"
        _write_plain(store, where, plain, path)
        with faults_told(path, "exporting to"):
            if path.suffix.lower() == ".zip":
                pack(plain, made / path.name)
                plain = made / path.name
            if path.exists():  # since
                raise StoreError(f"{path} exists. An export never writes over anything; give a new path.")
            plain.rename(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return path


def _write_plain(store: Store, where: object, folder: Path, path: Path) -> None:
    """Write a folder; `path` is that of the export, for messages."""
    stored = read_stored(store, where)
    with faults_told(path, "exporting to"):
        target = zarr.create_group(str(folder), zarr_format=3, attributes=stored.root)
        for name, attributes in stored.groups.items():
            target.require_group(name).attrs.update(attributes)
    nodes = [PurePosixPath(name) for name in (*stored.groups, *stored.arrays)]
    documents = len({*nodes, *(parent for node in nodes for parent in node.parents)})
    most = _shard_bytes(stored.arrays.values(), _FILES - documents)
    for name, array in stored.arrays.items():
        _copy(name, array, _shards(array, most), target, where, path)
    with warnings.catch_warnings(), faults_told(path, "exporting to"):
        # Not in the specification of zarr v3 yet; readers that know it open faster, others do not look.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(target.store)


def _copy(
    name: str, array: zarr.Array[Any], shards: tuple[int, ...] | None, target: zarr.Group, where: object, path: Path
) -> None:
    text = np.dtype(array.dtype).kind in "TO"
    with faults_told(path, "exporting to"):
        copied = target.create_array(
            name,
            shape=array.shape,
            chunks=array.chunks,
            shards=shards,
            dtype=str if text else array.dtype,
            compressors=[Crc32cCodec()],
            fill_value=array.fill_value,
            dimension_names=array.metadata.dimension_names,  # type: ignore[union-attr]
            attributes=dict(array.attrs),
            config={"write_empty_chunks": True},
        )
    for region in regions(array.shape, shards or array.chunks):
        with faults_told(where, f"reading {name} from"):
            values = array[region]
        with faults_told(path, "exporting to"):
            copied[region] = values


def _shard_bytes(arrays: Collection[zarr.Array[Any]], files: int) -> int:
    """The smallest size with which all have no more files than that; of sizes with more, the one with the fewest."""

    def excess(size: int) -> int:
        shards = ((array, _shards(array, size) or array.chunks) for array in arrays)
        number = sum(math.prod(-(-n // m) for n, m in zip(array.shape, shard, strict=True)) for array, shard in shards)
        return max(0, number - files)

    return min(_SHARD_BYTES, key=excess)


def _shards(array: zarr.Array[Any], most: int) -> tuple[int, ...] | None:
    """Whole chunks, as many from the last axis on as make a shard of at most so many bytes."""
    shard, size = list(array.chunks), math.prod(array.chunks) * max(np.dtype(array.dtype).itemsize, 1)
    for axis in reversed(range(len(shard))):
        wanted = -(-array.shape[axis] // shard[axis]) if shard[axis] else 1
        times = max(1, min(wanted, most // max(size, 1)))
        shard[axis] *= times
        size *= times
    return tuple(shard) if tuple(shard) != array.chunks else None


def regions(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Every chunk of an array as slices, in C order."""
    starts = [range(0, size, chunk) for size, chunk in zip(shape, chunks, strict=True)]
    for corner in itertools.product(*starts):
        ends = (min(at + chunk, size) for at, chunk, size in zip(corner, chunks, shape, strict=True))
        yield tuple(slice(at, end) for at, end in zip(corner, ends, strict=True))
