"""The storage engine, icechunk, in both of its major versions, and what a store asks of it.

Version 1 is all that Python 3.11 gets. Version 2 makes stores in a format of its own unless told otherwise, which
version 1 refuses; so every store is made in the format that both read, and one in another is told as what it is.
"""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import icechunk

from causalunet.errors import DamageError, StoreError
from causalunet.process_effects import left_alone
from causalunet.results.engine.forked import begin_in_this_process
from causalunet.results.engine.location import Location
from causalunet.results.guard.storage_errors import faults_told, is_newer, newer_format

__all__ = ["REPO", "begin", "check_format", "check_settings", "make", "manifests", "own_notes", "settings"]

REPO = "repo"
"""The file that stores in newer formats begin with, where older ones have a folder ``refs``."""

_SHARED_FORMAT = 1
"""The format of the engine's files that every supported version reads and writes."""
_ENGINES_NOTES = "__icechunk"
_MAGIC, _FORMAT_AT = "ICE🧊CHUNK".encode(), 36
"""How one of the engine's files begins, and where the number of its format stands."""


def make(location: Location) -> None:
    """Make an empty store, in the format that every supported version of the engine reads."""
    chosen: dict[str, Any] = {}
    if "spec_version" in inspect.signature(icechunk.Repository.create).parameters:
        chosen["spec_version"] = _SHARED_FORMAT
    icechunk.Repository.create(location.storage(), config=settings(), **chosen).save_config()


def manifests(handle: icechunk.Repository, commit: str) -> list[str]:
    """Names of the files that say which chunk stands where, as of a commit."""
    found: Any = handle.inspect_snapshot(commit)  # a mapping since version 2, text before
    document = json.loads(found) if isinstance(found, str) else found
    return [f"manifests/{entry['id']}" for entry in document["manifests"]]


def own_notes(commit: icechunk.SnapshotInfo) -> dict[str, Any]:
    """Give what was noted with a commit, without what the engine notes since version 2."""
    return {name: value for name, value in commit.metadata.items() if not name.startswith(_ENGINES_NOTES)}


def check_format(location: Location) -> None:
    """Refuse a store in a format that the installed engine does not read.

    In a folder, this looks at one file. An object store is to be asked only where the engine finds nothing.

    Raises
    ------
    StoreError
        It was made by a newer engine; how it can be opened is said. Or a file that is none of the engine's lies there.
    """
    if location.folder is not None:
        _check_file(location.folder / REPO, location)
        return
    with faults_told(location, "looking for a store at"):
        try:
            icechunk.Repository.open(location.storage())
        except icechunk.IcechunkError as error:
            if is_newer(error):  # else there is nothing
                raise


def _check_file(file: Path, location: Location) -> None:
    if not file.exists():
        return
    head = b""
    if file.is_file():
        with faults_told(location, "opening"), file.open("rb") as content:
            head = content.read(_FORMAT_AT + 1)
    if len(head) <= _FORMAT_AT or not head.startswith(_MAGIC):
        raise StoreError(
            f"{location} is not a results store that can be opened: it holds {REPO!r}, which is not the file of that "
            "name that icechunk 2 writes. Restore it from a copy if this was a store; nothing is written over it."
        )
    if head[_FORMAT_AT] > _newest_format():
        raise newer_format(location)


@cache
def _newest_format() -> int:
    return max(map(int, icechunk.supported_spec_versions())) if hasattr(icechunk, "supported_spec_versions") else 1


def begin() -> None:
    """Note that this process uses the engine, and silence its logs, unless that is not wanted.

    They warn of commits without a lock, which these are not.
    """
    begin_in_this_process()
    _quiet()


@cache
def _quiet() -> None:
    if not left_alone("icechunk-logs"):
        icechunk.set_logs_filter("off")  # what goes wrong is raised; logs would repeat a strange store's words


def check_settings(location: Location) -> None:
    """Refuse settings that no study writes: some lead out of the store, others let reading wait for ever."""
    storage, own = location.storage(), settings()
    stored = icechunk.Repository.fetch_config(storage)
    if stored is None:
        return
    allowed: dict[str, tuple[Any, ...]] = {
        "caching": (own.caching,),
        "get_partial_values_concurrency": (own.get_partial_values_concurrency,),
        "max_concurrent_requests": (own.max_concurrent_requests,),
        "storage": (own.storage, storage.default_settings()),  # which version 2 of the engine writes out
        "virtual_chunk_containers": (own.virtual_chunk_containers,),
    }
    if strange := [name for name, values in allowed.items() if getattr(stored, name) not in (None, *values)]:
        raise DamageError(
            f"{location} has settings in config.yaml that no study writes: {', '.join(strange)}. It is not opened."
        )


def settings() -> icechunk.RepositoryConfig:
    """Give the settings that every store is made and opened with."""
    config = icechunk.RepositoryConfig.default()
    config.inline_chunk_threshold_bytes = 0  # every chunk is a file, with a checksum of its own
    # A commit writes those lists of chunks anew that it adds to: few, of interventions and of samples.
    apart: dict[Any, int] = {icechunk.ManifestSplitDimCondition.Axis(axis): 64 for axis in (0, 1)}
    sizes = {icechunk.ManifestSplitCondition.AnyArray(): apart}
    config.manifest = icechunk.ManifestConfig(splitting=icechunk.ManifestSplittingConfig.from_dict(sizes))
    return config
