"""Stores from strangers: refused in words before anything of theirs is believed, with little memory, and never for ever."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

import causalunet as cu
from causalunet.design import AblateBlock, SkipSteps, Window
from causalunet.errors import DamageError
from tests.analysis.synthetic import write_results

Document = dict[str, Any]
KINDS = ("live", "export")

both = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small store, live and exported; not to be changed."""
    path = tmp_path_factory.mktemp("originals")
    items = [AblateBlock(2, Window(4, 2)), AblateBlock(3, Window(3, 1)), SkipSteps(Window(2, 1))]
    results = write_results(path / "live", items, samples=4, steps=4, block=2)
    return {"live": path / "live", "export": results.export(path / "export")}


@pytest.fixture(scope="module")
def values(originals: dict[str, Path]) -> dict[str, NDArray[Any]]:
    """What the store holds."""
    return {name: np.asarray(variable.values) for name, variable in variables(cu.open_results(originals["live"]))}


@pytest.fixture
def store(kind: str, originals: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(originals[kind], tmp_path / "store"))


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


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of chunks that anything reads from now on."""
    keys: list[str] = []
    for kind in (LocalStore, icechunk.IcechunkStore):
        original = kind.get

        async def get(self: Any, key: str, *given: Any, _original: Any = original, **named: Any) -> Any:
            keys.extend([key] if "/c/" in key else [])
            return await _original(self, key, *given, **named)

        monkeypatch.setattr(kind, "get", get)
    return keys


@both
def test_what_is_sound_is_opened(store: Path, values: dict[str, NDArray[Any]]) -> None:
    opened = dict(variables(cu.open_results(store)))
    assert opened.keys() == values.keys()
    for name, variable in opened.items():
        np.testing.assert_array_equal(variable.values, values[name], err_msg=name)
        assert variable.dtype == values[name].dtype, name


def named(name: str, **configuration: Any) -> Document:
    return {"name": name, "configuration": configuration}


BYTES, CRC = named("bytes", endian="little"), {"name": "crc32c"}


def sharded(**changes: Any) -> list[Document]:
    return [
        named(
            "sharding_indexed",
            **{"chunk_shape": [3, 2], "codecs": [BYTES, CRC], "index_codecs": [BYTES, CRC], **changes},
        )
    ]


SSIM = "outcomes/ssim"

DOCUMENTS: dict[str, tuple[str, Callable[[Document], Any], str]] = {
    "version 2": (SSIM, lambda d: d.update(zarr_format=2), "of zarr version 2"),
    "version true": (SSIM, lambda d: d.update(zarr_format=True), "of zarr version True"),
    "group of version 2": ("outcomes", lambda d: d.update(zarr_format=2), "of zarr version 2"),
    "no kind": (SSIM, lambda d: d.pop("node_type"), "is None of zarr version 3"),
    "group for an array": (SSIM, lambda d: {"zarr_format": 3, "node_type": "group"}, "is 'group' of zarr"),
    "array for a group": ("outcomes", lambda d: d.update(node_type="array"), "is 'array' of zarr"),
    "zstd": (SSIM, lambda d: d.update(codecs=[BYTES, named("zstd", level=0, checksum=False)]), "with the codecs"),
    "gzip": (SSIM, lambda d: d.update(codecs=[BYTES, named("gzip", level=1), CRC]), "with the codecs"),
    "blosc": (SSIM, lambda d: d.update(codecs=[BYTES, named("blosc", cname="zstd"), CRC]), "with the codecs"),
    "pickle": (SSIM, lambda d: d.update(codecs=[named("numcodecs.pickle"), CRC]), "with the codecs"),
    "json2": (SSIM, lambda d: d.update(codecs=[named("numcodecs.json2"), CRC]), "with the codecs"),
    "unknown codec": (SSIM, lambda d: d.update(codecs=[named("../x"), CRC]), "with the codecs"),
    "transpose": (SSIM, lambda d: d["codecs"].insert(0, named("transpose", order=[1, 0])), "with the codecs"),
    "big endian": (SSIM, lambda d: d.update(codecs=[named("bytes", endian="big"), CRC]), "with the codecs"),
    "no checksum": (SSIM, lambda d: d.update(codecs=[BYTES]), "with the codecs"),
    "no codecs": (SSIM, lambda d: d.update(codecs=[]), "with the codecs"),
    "codecs as text": (SSIM, lambda d: d.update(codecs="bytes"), "with the codecs"),
    "shards in shards": (SSIM, lambda d: d.update(codecs=sharded(codecs=sharded())), "with the codecs"),
    "zstd in shards": (SSIM, lambda d: d.update(codecs=sharded(codecs=[BYTES, named("zstd"), CRC])), "with the codecs"),
    "zstd in an index": (
        SSIM,
        lambda d: d.update(codecs=sharded(index_codecs=[BYTES, named("gzip")])),
        "with the codecs",
    ),
    "index first": (SSIM, lambda d: d.update(codecs=sharded(index_location="start")), "with the codecs"),
    "uneven shards": (SSIM, lambda d: d.update(codecs=sharded(chunk_shape=[3, 3])), "of .* chunks"),
    "shards of nothing": (SSIM, lambda d: d.update(codecs=sharded(chunk_shape=[0, 2])), "with the codecs"),
    "huge index": (
        "baseline/image",
        lambda d: (
            d["chunk_grid"]["configuration"].update(chunk_shape=[1 << 12, 3, 64, 64]),
            d.update(codecs=sharded(chunk_shape=[1, 1, 1, 1])),
            None,
        )[-1],
        "to a shard",
    ),
    "objects": (SSIM, lambda d: d.update(data_type="object"), "of type 'object'"),
    "raw bytes": (SSIM, lambda d: d.update(data_type="r80"), "of type 'r80'"),
    "bytes of any length": (SSIM, lambda d: d.update(data_type="variable_length_bytes"), "of type"),
    "structured": (SSIM, lambda d: d.update(data_type=named("structured", fields=[["a", "int8"]])), "of type"),
    "other type": (SSIM, lambda d: d.update(data_type="int64"), "of type 'int64'"),
    "text for a number": ("outcomes/start", lambda d: d.update(data_type="string"), "of type 'string'"),
    "number for a text": ("outcomes/kind", lambda d: d.update(data_type="float64"), "of type 'float64'"),
    "floats for steps": ("baseline/step", lambda d: d.update(data_type="float64"), "of type 'float64'"),
    "fill value": (SSIM, lambda d: d.update(fill_value=0.99), "with the fill value 0.99"),
    "fill value of a status": ("outcomes/status", lambda d: d.update(fill_value=1), "with the fill value 1"),
    "fill text": ("outcomes/failure", lambda d: d.update(fill_value="x"), "with the fill value 'x'"),
    "other dimensions": (SSIM, lambda d: d.update(dimension_names=["sample", "intervention"]), "along"),
    "unnamed dimensions": (SSIM, lambda d: d.pop("dimension_names"), "along None"),
    "dimensions without names": (SSIM, lambda d: d.update(dimension_names=[None, None]), "along"),
    "endless shape": (SSIM, lambda d: d.update(shape=[10**18, 4]), "of the shape"),
    "a billion coordinates": ("outcomes/start", lambda d: d.update(shape=[10**9]), "of the shape"),
    "a billion steps": ("baseline/step", lambda d: d.update(shape=[10**9]), "of the shape"),
    "negative shape": (SSIM, lambda d: d.update(shape=[-1, 4]), "of the shape"),
    "shape of fractions": (SSIM, lambda d: d.update(shape=[4.0, 4]), "of the shape"),
    "more axes": (SSIM, lambda d: d.update(shape=[4, 4, 1]), "of the shape"),
    "other length": (SSIM, lambda d: d.update(shape=[5, 4]), "along intervention"),
    "longer coordinate": ("outcomes/start", lambda d: d.update(shape=[7]), "along intervention"),
    "longer samples elsewhere": ("baseline/seed", lambda d: d.update(shape=[7]), "along sample"),
    "huge chunks": (
        SSIM,
        lambda d: (
            d["chunk_grid"]["configuration"].update(chunk_shape=[1 << 20, 1 << 20]),
            d.update(codecs=[BYTES, CRC]),
            None,
        )[-1],
        "with chunks of .* bytes",
    ),
    "chunks of nothing": (
        SSIM,
        lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[0, 4]),
        "with the chunks",
    ),
    "other grid": (SSIM, lambda d: d.update(chunk_grid=named("rectilinear", chunk_shapes=[[1]])), "with the chunks"),
    "other names of chunks": (
        SSIM,
        lambda d: d.update(chunk_key_encoding=named("v2", separator=".")),
        "other names of chunks",
    ),
    "storage transformers": (SSIM, lambda d: d.update(storage_transformers=[named("x")]), "which no study writes"),
    "unknown field": (SSIM, lambda d: d.update(extra={"must_understand": False}), "which no study writes"),
    "unknown field of a group": ("outcomes", lambda d: d.update(extra=1), "which no study writes"),
    "no attributes": (SSIM, lambda d: d.update(attributes=[1]), "with other attributes"),
    "units": (SSIM, lambda d: d["attributes"].update(units=5), "with other attributes"),
    "long name": (SSIM, lambda d: d["attributes"].update(long_name=["a"]), "with other attributes"),
    "coordinates of a group": ("outcomes", lambda d: d["attributes"].update(coordinates=5), "with other attributes"),
    "attributes of a group": ("outcomes", lambda d: d.update(attributes="x"), "with other attributes"),
}


def assert_refused(path: Path, message: str, chunks_read: list[str]) -> None:
    """Opening is refused before any chunk is read."""
    chunks_read.clear()
    with pytest.raises(DamageError, match=message) as error:
        cu.open_results(path)
    assert chunks_read == []
    assert len(str(error.value)) < 1_500


@pytest.mark.parametrize("kind", ["export"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_that_no_study_writes_are_refused(name: str, store: Path, chunks_read: list[str]) -> None:
    place, change, message = DOCUMENTS[name]
    rewrite(store, place, change)
    assert_refused(store, message, chunks_read)


@pytest.mark.parametrize("kind", ["live"])
@pytest.mark.parametrize(
    "name", ["version 2", "zstd", "pickle", "objects", "endless shape", "a billion coordinates", "units"]
)
def test_documents_of_live_stores_are_looked_at_too(name: str, store: Path, chunks_read: list[str]) -> None:
    place, change, message = DOCUMENTS[name]
    rewrite(store, place, change)
    assert_refused(store, message, chunks_read)
    with pytest.raises(DamageError, match=message):
        stored_grid(Repository.open(Location.parse(store)).writable_root(), store)
