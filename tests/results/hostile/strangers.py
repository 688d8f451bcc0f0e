"""What a stranger can do to a store: anything, below whatever the package writes with."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import icechunk
import pytest
import xarray as xr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import causalunet as cu
from causalunet.errors import DamageError
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.guard.checked_store import read_stored, stored_grid

Document = dict[str, Any]


KINDS = ("live", "export")


both = pytest.mark.parametrize("kind", KINDS)


def variables(results: xr.DataTree) -> Iterator[tuple[str, xr.Variable]]:
    for node in results.subtree:
        for name, variable in node.to_dataset().variables.items():
            yield f"{node.path}/{name}", variable


def put(path: Path, contents: dict[str, bytes | None]) -> None:
    """Write below the store's own writer: whatever a stranger can write."""
    if (path / "zarr.json").exists():
        for key, content in contents.items():
            if content is None:
                (path / key).unlink()
            else:
                (path / key).parent.mkdir(parents=True, exist_ok=True)
                (path / key).write_bytes(content)
        return
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path))).writable_session("main")
    for key, content in contents.items():
        if content is None:
            sync(session.store.delete(key))
        else:
            sync(session.store.set(key, default_buffer_prototype().buffer.from_bytes(content)))
    session.commit("from a stranger")


@contextmanager
def put_back(*files: Path) -> Iterator[None]:
    """Have files as they were afterwards."""
    contents = {file: file.read_bytes() for file in files}
    try:
        yield
    finally:
        for file, content in contents.items():
            file.write_bytes(content)


def read(path: Path, key: str) -> bytes:
    if (path / "zarr.json").exists():
        return (path / key).read_bytes()
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path))).readonly_session("main")
    return bytes(sync(session.store.get(key, default_buffer_prototype())).to_bytes())


def rewrite(path: Path, place: str, change: Callable[[Document], Any]) -> None:
    """Change the document of a group or array, and drop the copy of all documents."""
    documents = {place: json.loads(read(path, f"{place}/zarr.json".lstrip("/")))}
    if (path / "zarr.json").exists():
        documents.setdefault("", json.loads(read(path, "zarr.json"))).pop("consolidated_metadata", None)
    changed = change(documents[place])
    documents[place] = documents[place] if changed is None else changed
    put(path, {f"{name}/zarr.json".lstrip("/"): json.dumps(document).encode() for name, document in documents.items()})


def without(document: Document, name: str) -> Document:
    return {key: value for key, value in document.items() if key != name}


def named(name: str, **configuration: Any) -> Document:
    return {"name": name, "configuration": configuration}


SSIM = "outcomes/ssim"


def reread(path: Path) -> None:
    """What running a study into a store reads first."""
    root = StudyWriter(Repository.open(Location.parse(path))).root
    stored_grid(read_stored(root.store, path), path)


def assert_refused(path: Path, message: str, chunks_read: list[str]) -> None:
    """Opening is refused before any chunk is read."""
    chunks_read.clear()
    with pytest.raises(DamageError, match=message) as error:
        cu.open_results(path)
    assert chunks_read == []
    assert len(str(error.value)) < 1_500


def kind_of(path: Path) -> str:
    return "export" if (path / "zarr.json").exists() else "live"


def peak() -> int:
    """Most memory that the process ever had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
