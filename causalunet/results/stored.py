"""Reading back what a store says of itself, without believing it: everything is checked before it is used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, VLenUTF8Codec

from causalunet.design.interventions import Intervention
from causalunet.design.study import Sample
from causalunet.errors import CausalUNetError, DamageError, StoreError
from causalunet.results.faults import faults_told
from causalunet.results.grid import Grid
from causalunet.results.schema import FORMAT, FORMAT_VERSION, variable_at

__all__ = ["check_arrays", "check_attributes", "stored_grid"]

_MOST_CHUNK_BYTES = 1 << 28
_MOST_TEXTS = 10_000_000
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_CODECS = (BytesCodec, Crc32cCodec, VLenUTF8Codec, ShardingCodec)
_MAPPINGS = ("study",)
_TEXTS = ("digest", "model_fingerprint")


def check_attributes(attributes: Mapping[str, Any], where: object) -> None:
    """Check that the attributes of a root are those of a results store of this version.

    Raises
    ------
    StoreError
        They are not.
    """
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"{where} is a zarr store, but not one of causalunet's results, or its creation was cut off. "
            "Give the path of a store that study.run(...) wrote."
        )
    if attributes.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{where} has format version {attributes.get('format_version')!r:.40}; this causalunet reads "
            f"{FORMAT_VERSION}. Open it with the version of causalunet that wrote it."
        )
    block = attributes.get("block")
    wrong = [name for name in _MAPPINGS if not isinstance(attributes.get(name, {}), dict)]
    wrong += [name for name in _TEXTS if not isinstance(attributes.get(name, ""), str)]
    wrong += ["block"] if isinstance(block, bool) or not isinstance(block, int) or block < 1 else []
    if wrong:
        raise DamageError(f"{where} is damaged: its attributes {', '.join(wrong)} are not what a study writes.")


def check_arrays(root: zarr.Group, where: object) -> None:
    """Check names, codecs and sizes of every array before any chunk is read.

    A store from a stranger can so neither name a path outside of itself, nor run a codec that unpickles, nor unpack a
    small chunk into all of the memory.

    Raises
    ------
    DamageError
        Something is not as a study writes it.
    """
    with faults_told(where, "listing"):
        members = dict(root.members(max_depth=None))
    for path, item in members.items():
        if not all(_NAME.fullmatch(part) for part in path.split("/")):
            raise DamageError(f"{where} has a member with the name {path!r:.200}, which no study writes.")
        if not isinstance(item, zarr.Array):
            continue
        _check_array(path, item, where)
        variable = variable_at(path)
        dims = getattr(item.metadata, "dimension_names", None)
        if dims is None or len(dims) != item.ndim or (variable is not None and tuple(dims) != variable.dims):
            raise DamageError(f"{where} has an array {path} along {dims}, which is not what a study writes.")


def _check_array(path: str, array: zarr.Array[Any], where: object) -> None:
    metadata = array.metadata
    if metadata.zarr_format != 3:
        raise DamageError(f"{where} has an array {path} of zarr version 2, which may run code; it is not read.")
    codecs = list(metadata.codecs)
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            codecs += [*codec.codecs, *codec.index_codecs]
    strange = [type(codec).__name__ for codec in codecs if not isinstance(codec, _CODECS)]
    if strange:
        raise DamageError(f"{where} has an array {path} with the codec {strange[0]}, which no study writes.")
    kind = np.dtype(array.dtype).kind
    if kind not in "biufTO" or (kind == "O" and not any(isinstance(codec, VLenUTF8Codec) for codec in codecs)):
        raise DamageError(f"{where} has an array {path} of type {array.dtype}, which no study writes.")
    size = math.prod(array.chunks) * max(np.dtype(array.dtype).itemsize, 1)
    if size > _MOST_CHUNK_BYTES or (kind in "TO" and math.prod(array.shape) > _MOST_TEXTS):
        raise DamageError(
            f"{where} has an array {path} with chunks of {size:,} bytes; no study writes more than "
            f"{_MOST_CHUNK_BYTES:,}, and reading it might fill the memory."
        )


def stored_grid(root: zarr.Group, where: object) -> Grid:
    """Read what stands where along the axes of a store.

    Raises
    ------
    DamageError
        The coordinates do not say it.
    """
    with faults_told(where, "reading the coordinates of"):
        specs = [str(text) for text in _values(root, "outcomes/spec")]
        prompts = [str(text) for text in _values(root, "outcomes/prompt")]
        seeds = [int(seed) for seed in _values(root, "outcomes/seed")]
        summary = _values(root, "activation_summary/component") if "activation_summary" in root else ()
        activations = sorted(root["activations"].group_keys()) if "activations" in root else ()  # type: ignore[union-attr]
    try:
        interventions = tuple(Intervention.from_json(json.loads(text)) for text in specs)
    except (CausalUNetError, ValueError, RecursionError) as error:
        raise DamageError(f"{where} is damaged: an intervention cannot be read back ({error!s:.200}).") from error
    samples = tuple(Sample(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True))
    return Grid(interventions, samples, tuple(map(str, summary)), tuple(activations))


def _values(root: zarr.Group, path: str) -> Any:
    found = root[path]
    if not isinstance(found, zarr.Array):
        raise DamageError(f"The store has a group where the coordinate {path} should be.")
    return found[...]
