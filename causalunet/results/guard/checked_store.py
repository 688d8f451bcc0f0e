"""Reading back what a store says of itself, without believing it: everything is checked before it is used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from causalunet.design.interventions import Intervention
from causalunet.design.limits import COMPONENT_NAME, MOST_BLOCKS, MOST_DEPTH, MOST_PARTS, is_integer, shown
from causalunet.design.registered import plugins, unknown_sampler, unknown_start, unregistered
from causalunet.design.starts import Start
from causalunet.design.study import Sample
from causalunet.dims import DIMS, FACTOR, LATENTS, STEP
from causalunet.errors import CausalUNetError, DamageError, PluginError, StoreError
from causalunet.prompts import NO_PROMPT
from causalunet.results.guard.documents import array_document, check_group_document, read_document
from causalunet.results.guard.storage_errors import faults_told
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.declaration import EARLIER, Declaration
from causalunet.results.meaning.grid import Grid
from causalunet.results.meaning.schema import SAMPLE_START

__all__ = [
    "Reader",
    "Stored",
    "check_imported",
    "check_specs",
    "read_stored",
    "renewed_digests",
    "stored_grid",
]

_AT_ONCE = 64
_MOST_MEMBERS = 1_000
"""Arrays of a group."""
_V2 = {".zarray", ".zgroup", ".zattrs", ".zmetadata"}
_OF_COMPONENTS, _OF_OUTCOMES = "activations", "outcomes"


@dataclass(frozen=True)
class Stored:
    """What a store holds, checked.

    Attributes
    ----------
    root : dict
        Attributes of the root, as they are written.
    attributes : StoreAttributes
        The same, read.
    groups : dict of str to dict
        Attributes of every group with arrays, by path.
    asynchronous : dict of str to zarr.AsyncArray
        By path; reading them takes no more memory than their chunks.
    """

    root: dict[str, Any]
    attributes: StoreAttributes
    groups: dict[str, dict[str, Any]]
    asynchronous: dict[str, zarr.AsyncArray[Any]]

    @property
    def declaration(self) -> Declaration:
        """What the store says that it holds."""
        return self.attributes.declaration

    @property
    def brought(self) -> dict[str, tuple[str, ...]]:
        """Labels of dimensions that outcomes brought, by name, those of the model's factors among them."""
        found = {
            dim: f"{_OF_OUTCOMES}/{dim}"
            for dim in self.declaration.dims
            if dim not in {*DIMS, *LATENTS} or dim == FACTOR
        }
        return {dim: tuple(_values(self, path)) for dim, path in found.items() if path in self.arrays}

    @cached_property
    def arrays(self) -> dict[str, zarr.Array[Any]]:
        """The same arrays, to be read in turn."""
        return {path: zarr.Array(array) for path, array in self.asynchronous.items()}


@dataclass(frozen=True, slots=True)
class Reader:
    """Values of a store's arrays; what is wrong with their bytes is told, and nothing else is taken for that.

    Parameters
    ----------
    stored : Stored
    where : object
        Whose text names the store.
    """

    stored: Stored
    where: object

    def has(self, *paths: str) -> bool:
        """Whether all of these arrays are there."""
        return all(path in self.stored.arrays for path in paths)

    def read(self, path: str, index: Any = ...) -> NDArray[Any]:
        """Values of an array, or of a part of it; none if it is not there."""
        if path not in self.stored.arrays:
            return np.empty(0)
        with faults_told(self.where, f"reading {path} from"):
            return np.asarray(self.stored.arrays[path][index])


def read_stored(store: Store, where: object) -> Stored:
    """Read and check what a store says of itself, before any chunk of it is read.

    A store from a stranger can so neither name a path outside of itself, nor run a codec that unpickles, nor unpack a
    small chunk into all of the memory.

    Parameters
    ----------
    store : zarr Store
    where : object
        Whose text names the store.

    Raises
    ------
    StoreError
        It holds no results, or those of another version.
    DamageError
        Something is not as a study writes it.
    """
    with faults_told(where, "opening"):
        attributes, root, groups, documents = sync(_documents(store, where))
        written, declaration = check_group_document(root, "", where), attributes.declaration
        arrays = {path: _array(store, path, one, where, declaration) for path, one in documents.items()}
        checked = {path: check_group_document(document, path, where) for path, document in groups.items()}
        _check_consolidated(root, groups, documents, where)
    _check_dims(arrays, checked, where, declaration)
    return Stored(written, attributes, {path: checked[path] for path in checked if path != _OF_COMPONENTS}, arrays)


async def _documents(
    store: Store, where: object
) -> tuple[StoreAttributes, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Attributes and document of the root, documents of its groups and of their arrays; nothing else is looked at."""
    (root,) = (await _read_several(store, [""], where)).values()
    attributes = StoreAttributes.from_json(root.get("attributes"), where)
    paths = await _members(store, "", _MOST_MEMBERS, where)
    if strange := [path for path in paths if path not in attributes.declaration.groups]:
        raise _strange_member(strange[0], where)
    if _OF_COMPONENTS in paths:
        paths += await _members(store, _OF_COMPONENTS, MOST_BLOCKS, where)
    groups = await _read_several(store, paths, where)
    arrays: list[str] = []
    for group in groups:
        arrays += await _members(store, group, _MOST_MEMBERS, where) if group != _OF_COMPONENTS else []
    return attributes, root, groups, await _read_several(store, arrays, where)


def _nothing_laid_out(where: object) -> StoreError:
    return StoreError(
        f"{where} holds no study yet: a process is making it at this moment, or was ended while it did. "
        "Run the study into it (again) with study.run(path)."
    )


async def _read_several(store: Store, paths: list[str], where: object) -> dict[str, dict[str, Any]]:
    prototype = default_buffer_prototype()

    async def read(path: str) -> dict[str, Any]:
        content = await store.get(f"{path}/zarr.json".lstrip("/"), prototype)
        if content is None:
            raise _strange_member(path, where) if path else _nothing_laid_out(where)
        return read_document(content.to_bytes(), path, where)

    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        found |= zip(some, await asyncio.gather(*map(read, some)), strict=True)
    return found


async def _members(store: Store, group: str, most: int, where: object) -> list[str]:
    """Paths of what lies in a group; hidden files are not looked at."""
    paths: list[str] = []
    async for name in store.list_dir(group):
        path = f"{group}/{name}".lstrip("/")
        hidden = name.startswith(".") and name not in _V2
        if hidden or name == "zarr.json":
            continue
        paths.append(path)
        if not COMPONENT_NAME.fullmatch(name) or name in _V2 or len(paths) > most:
            raise _strange_member(path, where)
    return sorted(paths)


def _strange_member(path: str, where: object) -> DamageError:
    return DamageError(
        f"{where} holds {path or 'no zarr.json'!a:.300}, which no study writes, or which lacks its zarr.json. Take out "
        "what was put there; the store is damaged otherwise."
    )


def _check_consolidated(root: dict[str, Any], groups: dict[str, Any], arrays: dict[str, Any], where: object) -> None:
    """Check that the copy of all documents in the root, which other readers take, says the same."""
    if (copy := root.get("consolidated_metadata")) is None:
        return
    found = copy.get("metadata") if isinstance(copy, dict) else None
    found = found if isinstance(found, dict) and all(isinstance(one, dict) for one in found.values()) else {}
    if {path: _alone(one) for path, one in found.items()} != {
        path: _alone(x) for path, x in {**groups, **arrays}.items()
    }:
        raise DamageError(f"{where} is damaged: its consolidated metadata is not that of its arrays.")


def _alone(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "consolidated_metadata"}


def _array(
    store: Store, path: str, document: dict[str, Any], where: object, declaration: Declaration
) -> zarr.AsyncArray[Any]:
    checked: Any = array_document(document, path, where, declaration)
    return zarr.AsyncArray(checked, StorePath(store, path))


def _check_dims(
    arrays: Mapping[str, zarr.AsyncArray[Any]], groups: Iterable[str], where: object, declaration: Declaration
) -> None:
    """Check that arrays of one group, and the shared dimensions of all, have one size, and their coordinates."""
    sizes: dict[tuple[str, str], tuple[int, str]] = {}
    shared = {one.dim for one in EARLIER.coordinates} - {STEP}
    for path, array in arrays.items():
        group = path.rpartition("/")[0]
        for dim, size in zip(dims_of(array), array.shape, strict=True):
            for scope in (group, "") if dim in shared else (group,):
                other = sizes.setdefault((scope, dim), (size, path))
                if other[0] != size:
                    raise DamageError(
                        f"{where} is damaged: along {dim}, {path} has {size:,} entries and {other[1]} has {other[0]:,}."
                    )
    dims: dict[str, set[str]] = {}
    for group, dim in sizes:
        dims.setdefault(group, set()).add(dim)
    lacking = [
        f"{group}/{one.name}"
        for group, dim in sizes
        if group
        for one in declaration.coordinates_of(dim, dims[group])
        if f"{group}/{one.name}" not in arrays
    ]
    lacking += [
        f"{group}/" for group in declaration.groups if not group.startswith("activation") and group not in groups
    ]
    if lacking:
        raise DamageError(f"{where} is damaged: it lacks {', '.join(lacking[:3])}.")
    for path, array in arrays.items():
        group, _, name = path.rpartition("/")
        if name in dims[group] and dims_of(array) != (name,):
            raise DamageError(
                f"{where} is damaged: {path} lies along {shown(dims_of(array))}, and {group} along {name}."
            )


def dims_of(array: zarr.Array[Any] | zarr.AsyncArray[Any]) -> tuple[str, ...]:
    """Names of an array's dimensions."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    return tuple(names or ())


def check_specs(texts: Iterable[str], where: object) -> None:
    """Check that stored interventions have the form of interventions, of whatever kinds.

    Raises
    ------
    DamageError
        One has not.
    """
    for text in texts:
        try:
            well = _is_spec(json.loads(text), 0)
        except (ValueError, RecursionError):
            well = False
        if not well:
            raise DamageError(f"{where} is damaged: an intervention is stored as {shown(text)}.")


def _is_spec(value: Any, depth: int) -> bool:
    configuration = (
        value.get("configuration") if isinstance(value, dict) and isinstance(value.get("name"), str) else None
    )
    if not isinstance(configuration, dict) or depth > MOST_DEPTH:
        return False
    window, parts, fill = (configuration.get(name) for name in ("window", "parts", "fill"))
    if window is not None and not (isinstance(window, list) and window and all(map(_is_window, window))):
        return False
    if fill is not None and not (
        isinstance(fill, dict) and isinstance(fill.get("configuration"), dict) and "name" in fill
    ):
        return False
    if parts is None:
        return True
    return isinstance(parts, list) and len(parts) <= MOST_PARTS and all(_is_spec(part, depth + 1) for part in parts)


def renewed_digests(texts: Iterable[str]) -> dict[int, str]:
    """Digests of the stored interventions to which earlier versions gave others, by position.

    These are compositions, whose parts had an order, and windows of several parts, which may touch. Of a kind that is
    not known here, or that is another one than it was, the stored digest stands.
    """
    found = {}
    for position, text in enumerate(texts):
        spec = json.loads(text)
        configuration = spec["configuration"]
        if "parts" in configuration or len(configuration.get("window") or ()) > 1:
            try:
                found[position] = Intervention.from_json(spec).digest
            except Exception as error:
                if not isinstance(error, CausalUNetError) and not any(plugins(spec)):
                    raise
    return found


def _is_window(value: Any) -> bool:
    """Start and length, and perhaps a stage."""
    return isinstance(value, list) and len(value) in (2, 3) and all(map(is_integer, value))


def stored_grid(stored: Stored, where: object) -> Grid:
    """Read what stands where along the axes of a store.

    Raises
    ------
    PluginError
        Interventions are of kinds, or have fills, that are not imported.
    DamageError
        The coordinates do not say it.
    """
    with faults_told(where, "reading the coordinates of"):
        specs, prompts, seeds = (_values(stored, f"outcomes/{name}") for name in ("spec", "prompt", "seed"))
        written = f"outcomes/{SAMPLE_START}"
        begun = [json.loads(text) for text in _values(stored, written)] if written in stored.arrays else None
        places = tuple(_values(stored, "audit/place"))
        summary = _values(stored, "activation_summary/component") if "activation_summary" in stored.groups else []
        components = sorted(path.partition("/")[2] for path in stored.groups if path.startswith(f"{_OF_COMPONENTS}/"))
        documents = [json.loads(text) for text in specs]
        check_specs(specs, where)
    # Outside: from here on classes are made that a user may have defined.
    check_imported(documents, where, starts=begun or ())
    try:
        interventions = tuple(map(Intervention.from_json, documents))
        starts = seeds if begun is None else list(map(Start.from_json, begun))
    except (CausalUNetError, RecursionError) as error:
        raise DamageError(
            f"{where} is damaged: an intervention or a start cannot be read back ({error!s:.200})."
        ) from error
    samples = tuple(Sample(prompt or NO_PROMPT, start) for prompt, start in zip(prompts, starts, strict=True))
    return Grid(interventions, samples, tuple(summary), tuple(components), places)


def check_imported(documents: Iterable[Any], where: object, sampler: Any = None, starts: Iterable[Any] = ()) -> None:
    """Check that every kind of intervention, fill and start, and the sampler, if one is given, have a class here.

    Raises
    ------
    PluginError
        One has not.
    """
    names = sorted({name for document in documents for name in unregistered(document)}) + unknown_sampler(sampler)
    names += sorted({name for start in starts for name in unknown_start(start)})
    if names:
        raise PluginError(
            f"{where} was made with {', '.join(names[:5])}, which this process does not know: import the modules that "
            "define them first. The store itself is read without them."
        )


def _values(stored: Stored, path: str) -> list[Any]:
    if path not in stored.arrays:
        raise DamageError(f"The store lacks the coordinate {path}.")
    return np.asarray(stored.arrays[path][...]).tolist()
