"""What a zarr document may say: one array's, or one group's, checked before zarr reads it.

Only what a study writes passes: the arrays that the store declares and their coordinates, uncompressed and with
checksums. A document from a stranger can so neither name a codec that runs code, nor unpack a small file into all of
the memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import zarr.codecs
from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from causalunet.design.limits import MOST_BLOCKS, MOST_INTERVENTIONS, MOST_SAMPLES, MOST_STEPS, is_integer, shown
from causalunet.dims import CHANNEL, COMPONENT, FACTOR, INTERVENTION, PLACE, SAMPLE, STEP, X, Y
from causalunet.errors import DamageError
from causalunet.results.guard.declared import TYPES
from causalunet.results.meaning.declaration import Declaration

__all__ = ["array_document", "check_group_document", "read_document"]

_LONGEST = {
    INTERVENTION: MOST_INTERVENTIONS,
    SAMPLE: MOST_SAMPLES,
    STEP: MOST_STEPS,
    COMPONENT: 10 * MOST_BLOCKS,
    PLACE: 10 * MOST_BLOCKS,
    FACTOR: 1_000,
    CHANNEL: 1 << 16,
    Y: 1 << 16,
    X: 1 << 16,
}
_LONGEST_OTHER = 1 << 16
"""Of a dimension that an outcome brings."""
_MOST_CHUNK_BYTES = 1 << 29
_MOST_CHUNKS = 1 << 26
_MOST_TEXT_BYTES = 1 << 26
_MOST_TEXTS = 1 << 24
_MOST_INNER = 1 << 20
"""Chunks of a shard, whose index is read whole."""

_ARRAY = {
    *("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "attributes"),
    *("dimension_names", "zarr_format", "node_type", "storage_transformers"),
}
_GROUP = {"attributes", "zarr_format", "node_type", "consolidated_metadata"}
_KEYS: list[Any] = [{"name": "default", "configuration": {"separator": "/"}}, {"name": "default"}]
_REGULAR = {"name": "regular"}
_FLOATS = ("float16", "float32", "float64")


class VLenUTF8Codec(zarr.codecs.VLenUTF8Codec):
    """Text that says truly how many entries it has.

    A chunk begins with the number of its entries, and for as many the usual codec takes memory before it looks further:
    four wrong bytes cost 32 GB. zarr knows the codec of text by the name of its class.
    """

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        _check_text(chunk_bytes, chunk_spec)
        return await super()._decode_single(chunk_bytes, chunk_spec)

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        _check_text(chunk_bytes, chunk_spec)
        return super()._decode_sync(chunk_bytes, chunk_spec)


def _check_text(chunk_bytes: Any, chunk_spec: Any) -> None:
    content = chunk_bytes.as_numpy_array()
    size, expected = len(content), math.prod(chunk_spec.shape)
    entries = int.from_bytes(content[:4].tobytes(), "little")
    if entries != expected or size < 4 * (entries + 1) or size > _MOST_TEXT_BYTES:
        raise ValueError(f"A chunk of {expected:,} texts has {size:,} bytes and claims to hold {entries:,} texts.")


def read_document(content: bytes, path: str, where: object) -> dict[str, Any]:
    """Read a ``zarr.json``.

    Raises
    ------
    DamageError
        It is not a JSON object.
    """
    document = json.loads(content)
    if not isinstance(document, dict):
        raise DamageError(f"Failed opening {where}: zarr.json of {path or 'the root'} is {shown(document)}, no object.")
    return document


def check_group_document(document: Mapping[str, Any], path: str, where: object) -> dict[str, Any]:
    """Check what a group says of itself; gives its attributes.

    Raises
    ------
    DamageError
        Something is not as a study writes it.
    """
    _check_kind(document, "group", _GROUP, path, where)
    attributes = document.get("attributes", {})
    if not isinstance(attributes, dict) or not all(
        _is_text(attributes, name) for name in ("created_at", "coordinates")
    ):
        raise _strange("group", path, "with other attributes", where)
    return attributes


def array_document(document: Mapping[str, Any], path: str, where: object, declaration: Declaration) -> dict[str, Any]:
    """Check what an array says of itself.

    Parameters
    ----------
    document : mapping
        From `read_document`.
    path : str
        ``group/name``.
    where : object
        Whose text names the store.
    declaration : Declaration
        What the store holds.

    Returns
    -------
    dict
        The document, with codecs that are safe to read with.

    Raises
    ------
    DamageError
        Something is not as a study writes it.
    """
    _check_kind(document, "array", _ARRAY, path, where)
    attributes = document.get("attributes", {})
    texts = ("long_name", "units", "better")
    if not isinstance(attributes, dict) or not all(_is_text(attributes, name) for name in texts):
        raise _strange("array", path, "with other attributes", where)
    dims, shape, dtype = document.get("dimension_names"), document.get("shape"), document.get("data_type")
    expected, dtypes = _expected(path, dims, where, declaration)
    if dims != list(expected) or not isinstance(dtype, str) or dtype not in dtypes:
        raise _strange("array", path, f"along {shown(dims)} of type {shown(dtype)}", where)
    if not _is_shape(shape, len(expected), 0) or any(
        n > _LONGEST.get(dim, _LONGEST_OTHER) for n, dim in zip(shape, expected, strict=True)
    ):
        raise _strange("array", path, f"of the shape {shown(shape)}", where)
    if document.get("chunk_key_encoding") not in _KEYS or not _is_unwritten(document.get("fill_value"), dtype):
        raise _strange(
            "array", path, f"with the fill value {shown(document.get('fill_value'))} or other names of chunks", where
        )
    grid = document.get("chunk_grid")
    chunks = _configuration(grid, "regular").get("chunk_shape")
    if not _is_shape(chunks, len(shape), 1):
        raise _strange("array", path, f"with the chunks {shown(grid)}", where)
    codecs, inner = _codecs(document.get("codecs"), dtype, chunks, path, where)
    _check_sizes(shape, chunks, inner, dtype, path, where)
    kept = {name: value for name, value in document.items() if name != "storage_transformers"}
    return {**kept, "codecs": codecs}


def _expected(path: str, dims: Any, where: object, declaration: Declaration) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Dimensions and possible types of an array that is declared, or of a coordinate."""
    variable, name = declaration.variable_at(path), path.rpartition("/")[2]
    if variable is not None:
        if path.startswith("activations/") and variable.dtype in _FLOATS:
            return variable.dims, _FLOATS[:2]
        return variable.dims, (TYPES[variable.dtype],)
    along = [one for one in declaration.coordinates if one.name == name]
    if not along:
        raise _strange("array", path, "of that name", where)
    # A name may label two dimensions, such as "component": what was measured, and what was edited.
    chosen = next((one for one in along if [one.dim] == dims), along[0])
    return (chosen.dim,), (TYPES[chosen.dtype],)


def _codecs(
    value: Any, dtype: str, chunks: list[int], path: str, where: object
) -> tuple[list[ArrayBytesCodec | BytesBytesCodec], list[int]]:
    """Make the codecs that a document names, and give the shape of the chunks within a shard."""
    if (
        isinstance(value, list)
        and len(value) == 1
        and isinstance(value[0], dict)
        and value[0].get("name") == "sharding_indexed"
    ):
        sharding = _configuration(value[0], "sharding_indexed")
        inner, index = sharding.get("chunk_shape"), sharding.get("index_codecs")
        location = sharding.get("index_location", "end")
        plain = _plain_codecs(sharding.get("codecs"), dtype)
        if plain and _plain_codecs(index, "uint64") and location == "end" and _is_shape(inner, len(chunks), 1):
            made = ShardingCodec(chunk_shape=tuple(inner), codecs=plain, index_location="end")
            return [made], inner
    elif plain := _plain_codecs(value, dtype):
        return list(plain), chunks
    raise _strange("array", path, f"with the codecs {shown(value)}", where)


def _plain_codecs(value: Any, dtype: str) -> tuple[ArrayBytesCodec, BytesBytesCodec] | None:
    """Bytes as they are, or text, and a checksum; None if it is anything else."""
    if not isinstance(value, list) or len(value) != 2 or value[1] not in ({"name": "crc32c"}, _named("crc32c", {})):
        return None
    if dtype == "string":
        return (
            (VLenUTF8Codec(), Crc32cCodec()) if value[0] in ({"name": "vlen-utf8"}, _named("vlen-utf8", {})) else None
        )
    single = np.dtype(dtype).itemsize == 1
    known = [_named("bytes", {"endian": "little"}), *([{"name": "bytes"}, _named("bytes", {})] if single else [])]
    return (BytesCodec(endian=None if single else "little"), Crc32cCodec()) if value[0] in known else None


def _check_sizes(shape: list[int], chunks: list[int], inner: list[int], dtype: str, path: str, where: object) -> None:
    entries, itemsize = math.prod(chunks), 8 if dtype == "string" else np.dtype(dtype).itemsize
    within = [-(-chunk // part) for chunk, part in zip(chunks, inner, strict=True)]
    number = math.prod(max(1, -(-size // part)) for size, part in zip(shape, inner, strict=True))
    uneven = any(chunk % part for chunk, part in zip(chunks, inner, strict=True))
    if entries * itemsize > _MOST_CHUNK_BYTES or (dtype == "string" and entries > _MOST_TEXTS):
        raise DamageError(
            f"{where} has an array {path} with chunks of {entries * itemsize:,} bytes; no study writes more than "
            f"{_MOST_CHUNK_BYTES:,}, and reading it might fill the memory."
        )
    if number > _MOST_CHUNKS or math.prod(within) > _MOST_INNER or uneven:
        raise _strange("array", path, f"of {number:,} chunks, {math.prod(within):,} to a shard", where)


def _is_shape(value: Any, length: int, least: int) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list) and len(value) == length and all(is_integer(n) and least <= n < 1 << 40 for n in value)
    )


def _is_unwritten(value: Any, dtype: str) -> bool:
    """Whether a fill value is the one that marks what was never written."""
    if dtype == "string":
        return value == "" and isinstance(value, str)
    if dtype == "bool":
        return value is False
    if dtype in _FLOATS:  # of coordinates, which are written whole, the fill value is zero
        return value == "NaN" or (isinstance(value, float | int) and value == 0)
    return is_integer(value) and value == 0


def _configuration(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, dict) and value.keys() == {"name", "configuration"} and value["name"] == name:
        return value["configuration"] if isinstance(value["configuration"], dict) else {}
    return {}


def _named(name: str, configuration: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _is_text(attributes: Mapping[str, Any], name: str) -> bool:
    return isinstance(attributes.get(name, ""), str)


def _check_kind(document: Mapping[str, Any], kind: str, fields: set[str], path: str, where: object) -> None:
    version, found = document.get("zarr_format"), document.get("node_type")
    if not is_integer(version) or version != 3 or found != kind:
        raise DamageError(
            f"{where} is damaged: {path or 'the root'} is {shown(found)} of zarr version {shown(version)} where a "
            f"study writes a {kind} of version 3. Other versions may run code and are not read."
        )
    if strange := sorted(set(document) - fields) or document.get("storage_transformers"):
        raise _strange(kind, path, f"with {shown(strange)}", where)


def _strange(kind: str, path: str, what: str, where: object) -> DamageError:
    return DamageError(f"{where} has the {kind} {path or '/'!s:.300} {what}, which no study writes.")
