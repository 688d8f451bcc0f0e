"""Stores from strangers: refused in words before anything is believed, with little memory, and never for ever."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import icechunk
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

import causalunet as cu
from causalunet.design import AblateBlock, SkipSteps, Window
from causalunet.errors import CausalUNetError, DamageError, StoreError
from causalunet.results import lazy
from causalunet.results.folder import unpacked_bytes
from causalunet.results.location import Location
from causalunet.results.repository import Repository
from causalunet.results.stored import check_specs, read_stored, stored_grid
from causalunet.results.writer import StudyWriter
from tests.analysis.synthetic import edited, write_results
from tests.mutations import damaged, mutated

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
def opened(originals: dict[str, Path]) -> dict[str, xr.DataTree]:
    """Both, opened once; whole variables are not to be read."""
    return {kind: cu.open_results(path) for kind, path in originals.items()}


@pytest.fixture(scope="module")
def values(originals: dict[str, Path]) -> dict[str, NDArray[Any]]:
    """What the store holds."""
    return {name: np.asarray(variable.values) for name, variable in variables(cu.open_results(originals["live"]))}


@pytest.fixture(scope="module")
def export(originals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the export whose documents tests change and put back."""
    return Path(shutil.copytree(originals["export"], tmp_path_factory.mktemp("export") / "store"))


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


def without(document: Document, name: str) -> Document:
    return {key: value for key, value in document.items() if key != name}


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


def regular(*chunks: int) -> Document:
    return named("regular", chunk_shape=list(chunks))


SSIM = "outcomes/ssim"

DOCUMENTS: dict[str, tuple[str, Callable[[Document], Any], str]] = {
    "version 2": (SSIM, lambda d: d.update(zarr_format=2), "of zarr version 2"),
    "version true": (SSIM, lambda d: d.update(zarr_format=True), "of zarr version True"),
    "group of version 2": ("outcomes", lambda d: d.update(zarr_format=2), "of zarr version 2"),
    "no kind": (SSIM, lambda d: without(d, "node_type"), "is None of zarr version 3"),
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
        lambda d: d.update(chunk_grid=regular(1 << 12, 3, 64, 64), codecs=sharded(chunk_shape=[1, 1, 1, 1])),
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
    "unnamed dimensions": (SSIM, lambda d: without(d, "dimension_names"), "along None"),
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
        lambda d: d.update(chunk_grid=regular(1 << 20, 1 << 20), codecs=[BYTES, CRC]),
        "with chunks of",
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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_that_no_study_writes_are_refused(name: str, export: Path, chunks_read: list[str]) -> None:
    place, change, message = DOCUMENTS[name]
    with put_back(export / "zarr.json", export / place / "zarr.json"):
        rewrite(export, place, change)
        assert_refused(export, message, chunks_read)


@pytest.mark.parametrize("kind", ["live"])
def test_documents_of_live_stores_are_looked_at_too(store: Path, chunks_read: list[str]) -> None:
    for name in ("version 2", "pickle", "a billion coordinates"):
        place, change, message = DOCUMENTS[name]
        sound = read(store, f"{place}/zarr.json")
        rewrite(store, place, change)
        assert_refused(store, message, chunks_read)
        with pytest.raises(DamageError, match=message):
            reread(store)
        put(store, {f"{place}/zarr.json": sound})
    cu.open_results(store)


ATTRIBUTES: dict[str, list[Any]] = {
    "format": [None, 1, "zarr", ["causalunet-results"]],
    "format_version": [None, 1, 3, 2.0, "2", True, 10**5000],
    "block": [None, 0, -1, True, 2.0, "2", 10**30],
    "study": [None, "x", [], 5, {"name": 5}, {"sampler": 5}, {"sampler": {"configuration": 5}}, {"prompts": "x"}],
    "digest": [None, 5, ["x"]],
    "model_fingerprint": [5, {}],
    "created_at": [5, [], None],
    "factors": [5, ["colour"], {"colour": "red"}, {"colour": [1]}],
    "ssim": [5, []],
    "versions": [5, "1.0"],
    "sources": [5, {}, ["x"], "x"],
    "threads": ["1", [], True],
    "unet_calls_planned": ["1", None, float("nan"), float("inf"), 10**5000],
    "seconds": ["x", {}],
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_that_no_study_writes_are_refused(name: str, export: Path, chunks_read: list[str]) -> None:
    for value in ATTRIBUTES[name]:
        with put_back(export / "zarr.json"):
            sys.set_int_max_str_digits(0)
            try:
                rewrite(export, "", lambda d, value=value: d["attributes"].update({name: value}))  # type: ignore[misc]
            finally:
                sys.set_int_max_str_digits(4300)
            chunks_read.clear()
            with pytest.raises(StoreError) as error:
                cu.open_results(export)
            assert (
                name in str(error.value)
                or "not one of causalunet's" in str(error.value)
                or "version" in str(error.value)
            )
            assert chunks_read == []
            assert len(str(error.value)) < 1_500


def test_attributes_that_are_not_there_are_no_damage(export: Path) -> None:
    for name in ATTRIBUTES.keys() - {"format", "format_version", "block"}:
        with put_back(export / "zarr.json"):
            rewrite(export, "", lambda d, name=name: d["attributes"].pop(name, None) and None)  # type: ignore[misc]
            cu.open_results(export)


MEMBERS = {
    "another name": "outcomes/ssim2",
    "another group": "thesis",
    "a group of a group": "outcomes/more",
    "a space": "outcomes/ss im",
    "unicode": "outcomes/ssím",
    "long": "outcomes/" + "a" * 200,
    "version 2 array": "outcomes/.zarray",
    "version 2 group": ".zgroup",
    "version 2 attributes": "baseline/.zattrs",
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_no_study_writes_are_refused(name: str, export: Path, chunks_read: list[str]) -> None:
    place = export / MEMBERS[name]
    try:
        if name.startswith("version 2"):
            place.write_text("{}")
        else:
            shutil.copytree(export / ("outcomes" if "group" in name else SSIM), place)
        assert_refused(export, r"which no study writes|outcomes/more is 'group'", chunks_read)
    finally:
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def test_hidden_files_are_not_looked_at(export: Path) -> None:
    (export / "outcomes" / ".DS_Store").write_bytes(b"\0")
    cu.open_results(export)
    (export / "outcomes" / ".DS_Store").unlink()


@pytest.mark.parametrize("kind", ["live"])
def test_members_of_live_stores_are_looked_at_too(store: Path, chunks_read: list[str]) -> None:
    document = read(store, f"{SSIM}/zarr.json")
    put(store, {"outcomes/other/zarr.json": document})
    assert_refused(store, "which no study writes", chunks_read)


@both
def test_too_many_members_are_refused(store: Path, chunks_read: list[str]) -> None:
    document = read(store, f"{SSIM}/zarr.json")
    put(store, {f"outcomes/a{i}/zarr.json": document for i in range(101)})
    assert_refused(store, "which no study writes", chunks_read)


def test_groups_within_groups_without_end_are_refused(export: Path, chunks_read: list[str]) -> None:
    place = export / "outcomes"
    for _ in range(30):
        place /= "a"
    place.mkdir(parents=True)
    try:
        with pytest.raises(StoreError, match="lies too deep"):
            cu.open_results(export)
    finally:
        shutil.rmtree(export / "outcomes" / "a")


@both
@pytest.mark.parametrize("lacking", ["outcomes/kind", "baseline/prompt", "trajectory/step", "outcomes/spec"])
def test_coordinates_must_be_there(lacking: str, store: Path) -> None:
    if (store / "zarr.json").exists():
        rewrite(store, "", lambda d: None)
        shutil.rmtree(store / lacking)
    else:
        with edited(store) as root:
            del root[lacking]
    with pytest.raises(DamageError, match=f"it lacks {lacking}"):
        cu.open_results(store)


def test_groups_must_be_there(export: Path, tmp_path: Path) -> None:
    shutil.move(export / "trajectory", tmp_path / "away")
    with put_back(export / "zarr.json"):
        rewrite(export, "", lambda d: None)
        with pytest.raises(DamageError, match="it lacks trajectory"):
            cu.open_results(export)
    shutil.move(tmp_path / "away", export / "trajectory")


def test_the_copy_of_all_documents_says_the_same(export: Path) -> None:
    """Other readers believe the copy in the root; it may not name a codec that the arrays do not have."""
    document = json.loads((export / "zarr.json").read_text())
    for change in (
        lambda copy: copy["outcomes/ssim"].update(codecs=[named("numcodecs.pickle")]),
        lambda copy: copy.update({"../x": copy["outcomes/ssim"]}),
        lambda copy: copy.pop("outcomes/ssim"),
        lambda copy: copy.update({"outcomes": 5}),
    ):
        changed = json.loads(json.dumps(document))
        change(changed["consolidated_metadata"]["metadata"])
        with put_back(export / "zarr.json"):
            (export / "zarr.json").write_text(json.dumps(changed))
            with pytest.raises(DamageError, match="consolidated metadata"):
                cu.open_results(export)


SPECS = [
    "", "{", "5", "[]", '{"name": 5}', '{"name": "null"}', '{"name": "null", "configuration": []}',
    '{"name": "null", "configuration": {"window": 5}}', '{"name": "null", "configuration": {"window": [[1]]}}',
    '{"name": "edit", "configuration": {"fill": "zero"}}', '{"name": "composition", "configuration": {"parts": 5}}',
    '{"name": "null", "configuration": {"parts": ' * 9 + "[]" + "}}" * 9, "[" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["live"])
def test_interventions_are_stored_as_interventions(store: Path) -> None:
    for text in SPECS:
        with pytest.raises(DamageError, match="an intervention is stored as"):
            check_specs([text], store)
    with edited(store) as root:
        root["outcomes/spec"][1] = SPECS[-1]
    with pytest.raises(DamageError, match="an intervention is stored as"):
        cu.open_results(store)


@pytest.mark.parametrize("kind", ["live"])
def test_other_kinds_of_interventions_can_be_opened(store: Path) -> None:
    """A study may have kinds of its own, which the reader does not know; running it needs them."""
    with edited(store) as root:
        root["outcomes/spec"][0] = '{"name": "mine", "configuration": {"window": [[3, 2]], "strength": 0.5}}'
    cu.open_results(store)
    with pytest.raises(DamageError, match=r"cannot be read back.*'mine'"):
        reread(store)


def texts(entries: int, *contents: bytes) -> bytes:
    """A chunk of text that says how many entries it has, with its checksum."""
    body = struct.pack("<I", entries) + b"".join(struct.pack("<I", len(content)) + content for content in contents)
    return body + struct.pack("<I", google_crc32c.value(body))


TEXTS = {
    "a billion": texts(10**9, b"a"),
    "most": texts(2**32 - 1, b"a"),
    "fewer": texts(3, b"a", b"b", b"c"),
    "none": texts(0),
    "cut off": texts(4, b"a"),
    "no text": texts(4, b"a", b"\xff", b"c", b"d"),
    "a long one": struct.pack("<II", 4, 2**32 - 1)
    + struct.pack("<I", google_crc32c.value(struct.pack("<II", 4, 2**32 - 1))),
    "nothing": b"",
}


@both
@pytest.mark.parametrize("name", TEXTS)
def test_texts_say_truly_how_many_they_are(name: str, store: Path) -> None:
    """The usual codec takes 8 bytes for every entry announced, before it looks at one."""
    key = next(
        key for key in ("outcomes/kind/c/0", "outcomes/kind/c") if (store / key).exists() or kind_of(store) == "live"
    )
    put(store, {key: TEXTS[name]})
    before = peak()
    with pytest.raises(DamageError, match="outcomes/kind"):
        cu.open_results(store)
    assert peak() - before < 100


def kind_of(path: Path) -> str:
    return "export" if (path / "zarr.json").exists() else "live"


def peak() -> int:
    """Most memory that the process ever had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def test_coordinates_are_not_read_if_they_are_too_large(
    export: Path, chunks_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "_MOST_BYTES", 500)
    assert_refused(export, "bytes of coordinates, and no study more than 500", chunks_read)


def rle(size: int) -> bytes:
    """A zstd frame of a few bytes that unpacks to many zeros."""
    blocks = size >> 17
    body = b"".join(((1 << 20) | 2 | (i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks))
    return b"\x28\xb5\x2f\xfd\x00\x38" + body


GIGABYTES = 4 << 30
SKIPPED = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"

BOMBS = {
    "one frame": rle(GIGABYTES),
    "after a frame": Zstd().encode(b"a") + rle(GIGABYTES),
    "after a skipped frame": SKIPPED + rle(GIGABYTES),
    "many frames": b"".join([rle(GIGABYTES >> 4)] * 16),
    "an old version of zstd": b"\x27\xb5\x2f\xfd" + b"a" * 10_000,
}


@pytest.mark.parametrize("kind", ["live"])
@pytest.mark.parametrize("of", ["snapshots", "manifests"])
@pytest.mark.parametrize("name", BOMBS)
def test_files_of_the_engine_do_not_unpack_to_gigabytes(name: str, of: str, store: Path) -> None:
    (store / "sums").unlink(missing_ok=True)
    for file in (store / of).iterdir():
        file.write_bytes(file.read_bytes()[:39] + BOMBS[name])
    before = peak()
    with pytest.raises(DamageError, match=f"holds '{of}/.*unpacks to, more than any study writes"):
        cu.open_results(store)
    with pytest.raises(DamageError, match="unpacks to"):
        Repository.exists(Location.parse(store))
    assert peak() - before < 100


@given(st.lists(st.one_of(st.binary(max_size=100), st.integers(0, 300_000).map(bytes)), max_size=4), st.integers(1, 19))
def test_what_frames_unpack_to_is_bounded(contents: list[bytes], level: int) -> None:
    packed = b"".join(bytes(Zstd(level=level).encode(content)) for content in contents)
    size = sum(map(len, contents))
    assert size <= unpacked_bytes(packed) <= size + len(contents) * (1 << 17)
    assert unpacked_bytes(SKIPPED + packed) == unpacked_bytes(packed)
    assert unpacked_bytes(packed[: len(packed) // 2]) <= unpacked_bytes(packed) + (1 << 17)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_looked_at(content: bytes) -> None:
    assert unpacked_bytes(content) >= 0
    assert unpacked_bytes(b"\x28\xb5\x2f\xfd" + content) >= 0


def link(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "secret")


def link_to_a_folder(place: Path, outside: Path) -> None:
    place.symlink_to(outside)


def pipe(place: Path, outside: Path) -> None:
    os.mkfifo(place)


def listen(place: Path, outside: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(place.name)
    finally:
        os.chdir(here)


@both
@pytest.mark.parametrize("make", [link, link_to_a_folder, pipe, listen])
@pytest.mark.parametrize("where", ["", "deep", "locks"])
@pytest.mark.filterwarnings("ignore:.*unclosed.*:ResourceWarning")
def test_what_leads_elsewhere_is_refused(
    make: Callable[[Path, Path], None], where: str, kind: str, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    if where == "locks" and kind == "export":
        pytest.skip("exports have no locks")
    file = next(file for file in store.rglob("*") if file.is_file() and len(file.relative_to(store).parts) >= 2)
    place = {"": store / "refs", "deep": file, "locks": store / "locks" / "commit.lock"}[where]
    if where == "" and kind == "export":
        place = store / "thesis"
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    make(place, tmp_path)
    with pytest.raises(StoreError, match="which is a link or a device"):
        cu.open_results(store)
    if kind == "live":
        with pytest.raises(StoreError, match="which is a link or a device"):
            Repository.exists(Location.parse(store))
    assert (tmp_path / "secret").read_text() == "secret"


@both
def test_files_that_are_too_large_are_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = next(file for file in store.rglob("*") if file.is_file() and file.parent.name in ("chunks", "c"))
    with file.open("r+b") as opened:
        opened.truncate(1 << 30)  # sparse: it takes no room
    with pytest.raises(DamageError, match=r"of 1,073,741,824 bytes, which is, or unpacks to, more"):
        cu.open_results(store)


@pytest.mark.parametrize(
    ("kind", "name"), [("live", "config.yaml"), ("live", "refs/branch.main/ref.json"), ("export", "zarr.json")]
)
def test_small_files_are_small(store: Path, name: str) -> None:
    with (store / name).open("ab") as opened:
        opened.truncate(1 << 26)
    with pytest.raises(DamageError, match="which is, or unpacks to, more"):
        cu.open_results(store)


SETTINGS = {
    "max_concurrent_requests": "0",
    "storage": "{concurrency: {max_concurrent_requests_for_object: 65535, ideal_concurrent_request_size: 1}}",
    "caching": "{num_snapshot_nodes: 1, num_chunk_refs: 1, num_transaction_changes: 1, num_bytes_attributes: 1, "
    "num_bytes_chunks: 18446744073709551615}",
    "get_partial_values_concurrency": "65535",
}


@pytest.mark.parametrize("kind", ["live"])
def test_settings_that_no_study_writes_are_refused(store: Path) -> None:
    """With some of them icechunk 1.1 waits for ever."""
    sound = (store / "config.yaml").read_text()
    for name, text in SETTINGS.items():
        (store / "config.yaml").write_text(sound.replace(f"{name}: null", f"{name}: {text}"))
        with pytest.raises(DamageError, match=f"settings in config.yaml that no study writes: {name}"):
            cu.open_results(store)
    for broken in ("[" * 50_000, "\0", "storage: 5", "- 1"):
        (store / "config.yaml").write_text(broken)
        with pytest.raises(DamageError):
            cu.open_results(store)


@pytest.mark.parametrize("kind", ["live"])
@pytest.mark.parametrize("container", [True, False])
def test_references_out_of_the_store_are_never_followed(container: bool, store: Path, tmp_path: Path) -> None:
    secret = tmp_path / "outside"
    secret.mkdir()
    body = np.arange(4, dtype="<i8").tobytes()
    (secret / "secret").write_bytes(body + struct.pack("<I", google_crc32c.value(body)))
    config = icechunk.RepositoryConfig.default()
    url = f"file://{secret}/"
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer(url, icechunk.local_filesystem_store(str(secret)))
    )
    storage = icechunk.local_filesystem_storage(str(store))
    repository = icechunk.Repository.open(storage, config, authorize_virtual_chunk_access={url: None})
    session = repository.writable_session("main")
    session.store.set_virtual_ref("outcomes/flops/c/0", f"{url}secret", offset=0, length=36, validate_container=True)
    session.commit("from a stranger")
    there = icechunk.Repository.open(storage, config, authorize_virtual_chunk_access={url: None}).readonly_session(
        "main"
    )
    assert read_with(there, "outcomes/flops/c/0")[:32] == body, "whoever authorises it can read it"
    if container:
        repository.save_config()
        with pytest.raises(DamageError, match="virtual_chunk_containers"):
            cu.open_results(store)
        return
    results = cu.open_results(store)
    with pytest.raises(DamageError, match="Failed reading outcomes/flops"):
        results.outcomes.flops.load()
    assert results.outcomes.ssim.load().shape == (4, 4)
    assert results.verify(quiet=True).exit_code == 1
    with pytest.raises(StoreError):
        results.export(tmp_path / "export")


def read_with(session: icechunk.Session, key: str) -> bytes:
    return bytes(sync(session.store.get(key, default_buffer_prototype())).to_bytes())


def test_a_history_without_a_beginning_ends(originals: dict[str, Path], tmp_path: Path) -> None:
    store = Path(shutil.copytree(originals["live"], tmp_path / "store"))
    (store / "sums").unlink(missing_ok=True)
    newest, older, *_ = cu.open_results(store).history()
    file = store / "snapshots" / newest.id
    content = bytes(Zstd().decode(file.read_bytes()[39:]))
    assert content.count(identifier(older.id)) == 1
    looped = content.replace(identifier(older.id), identifier(newest.id))
    file.write_bytes(file.read_bytes()[:39] + bytes(Zstd().encode(looped)))
    with pytest.raises(DamageError, match="a commit comes before itself"):
        cu.open_results(store).history()


def identifier(text: str) -> bytes:
    """The twelve bytes that a name of the engine stands for, in Crockford's base 32."""
    number = 0
    for character in text:
        number = number * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(character)
    return (number >> (5 * len(text) - 96)).to_bytes(12, "big")


@both
def test_a_damaged_chunk_is_named_and_the_others_are_read(store: Path, values: dict[str, NDArray[Any]]) -> None:
    whole = values["/outcomes/image"]
    chunk = whole[:, :2].tobytes()  # a block of two samples
    for file in store.rglob("*"):
        if file.is_file() and (at := file.read_bytes().find(chunk[:1000])) >= 0:
            content = bytearray(file.read_bytes())
            content[at + 500] ^= 1
            file.write_bytes(content)
    image = cu.open_results(store).outcomes.image
    np.testing.assert_array_equal(image[:, 2:], whole[:, 2:])
    for damaged_part in (image, image[0, 0, 0, 0, 0], image[[2, 0], 1], image[::-1, ::-2]):
        with pytest.raises(DamageError, match=r"Chunk 0/0/0/0/0 of outcomes/image is damaged.*checksum"):
            damaged_part.load()


@pytest.mark.parametrize("kind", ["export"])
def test_a_missing_chunk_of_an_export_is_no_fill_value(store: Path) -> None:
    (file,) = (file for file in (store / SSIM / "c").rglob("*") if file.is_file())
    for damage in (lambda: file.write_bytes(b""), file.unlink, file.mkdir):
        damage()
        results = cu.open_results(store)
        with pytest.raises(DamageError, match=r"outcomes/ssim.*missing or empty"):
            results.outcomes.ssim.load()
        assert results.outcomes.mse.load().notnull().all()


keys = st.one_of(
    st.integers(-4, 3),
    st.builds(
        slice, st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5), st.sampled_from([None, 1, 2, -1, -2])
    ),
    st.lists(st.integers(-4, 3), max_size=5).map(lambda some: np.array(some, dtype=np.int64)),
)


@both
@given(data=st.data())
def test_parts_are_read_as_numpy_takes_them(
    kind: str, opened: dict[str, xr.DataTree], values: dict[str, NDArray[Any]], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["image", "ssim", "failure", "status"]))
    array, expected = opened[kind].outcomes[name], values[f"/outcomes/{name}"]
    axes = data.draw(st.lists(keys, min_size=1, max_size=2))
    for axis, key in reversed(list(enumerate(axes))):
        expected = expected[(slice(None),) * axis + (key,)]
    assert not array.variable._in_memory
    np.testing.assert_array_equal(array[tuple(axes)].values, expected)


def test_what_was_opened_can_be_sent_to_another_process(
    originals: dict[str, Path], values: dict[str, NDArray[Any]]
) -> None:
    sent = pickle.loads(pickle.dumps(cu.open_results(originals["live"]).outcomes.ssim))
    np.testing.assert_array_equal(sent, values["/outcomes/ssim"])


ENGINE = ("snapshots", "manifests", "transactions")


class Fuzzed:
    """A store of which files are changed, and put back after each trial."""

    def __init__(self, path: Path, values: dict[str, NDArray[Any]]) -> None:
        self.path, self.values = path, values
        everything = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".lock")
        self.chunks = [file for file in everything if "chunks" in file.parts or "c" in file.parts]
        self.others = [file for file in everything if file not in self.chunks]
        self.documents = [file for file in everything if file.name == "zarr.json"]
        self.packed = [file for file in everything if file.parent.name in ENGINE]

    @contextmanager
    def changed(self, contents: dict[Path, bytes | None]) -> Iterator[None]:
        with put_back(*contents):
            for file, content in contents.items():
                if content is None:
                    file.unlink()
                else:
                    file.write_bytes(content)
            yield

    def try_all(self, *, same: bool) -> None:
        """Open, look at everything and verify: only our own errors, and, if asked, no other values."""
        try:
            results = cu.open_results(self.path)
        except CausalUNetError:
            return
        for name, variable in variables(results):
            try:
                found = np.asarray(variable.values)
            except CausalUNetError:
                continue
            if same:
                np.testing.assert_array_equal(found, self.values[name], err_msg=name)
        for use in (lambda: results.outcomes.ssim.sel(kind="skip_steps"), lambda: results.verify(quiet=True)):
            try:
                use()
            except (CausalUNetError, KeyError):
                continue


@pytest.fixture(scope="module")
def fuzzed(
    originals: dict[str, Path], values: dict[str, NDArray[Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzzed")
    return {kind: Fuzzed(Path(shutil.copytree(path, folder / kind)), values) for kind, path in originals.items()}


def fuzz_bytes(store: Fuzzed, data: st.DataObject) -> None:
    """Damage a file, delete it, or put another in its place."""
    file = data.draw(st.sampled_from(store.chunks) | st.sampled_from(store.others))
    other = data.draw(st.none() | st.sampled_from([*store.chunks, *store.others]))
    if data.draw(st.integers(0, 9)) == 0:
        contents: dict[Path, bytes | None] = {file: None}
    elif other is not None and data.draw(st.integers(0, 3)) == 0:
        contents = {file: other.read_bytes(), other: file.read_bytes()}
    else:
        contents = {file: data.draw(damaged(file.read_bytes()))}
    with store.changed(contents):
        store.try_all(same=len(contents) == 1)


def fuzz_packed(store: Fuzzed, data: st.DataObject) -> None:
    """Damage what a file of the engine unpacks to; whoever does that leaves out the checksums."""
    file = data.draw(st.sampled_from(store.packed))
    content = file.read_bytes()
    packed = content[:39] + bytes(Zstd(level=1).encode(data.draw(damaged(bytes(Zstd().decode(content[39:]))))))
    sums = store.path / "sums"
    with store.changed({file: packed, **({sums: None} if sums.exists() else {})}):
        store.try_all(same=False)


def fuzz_documents(store: Fuzzed, data: st.DataObject) -> None:
    """Change what documents say."""
    root = store.path / "zarr.json"
    file = data.draw(st.sampled_from(store.documents) | st.just(root))
    contents = {path: json.loads(path.read_text()) for path in {file, root}}
    if data.draw(st.integers(0, 3)):
        contents[root].pop("consolidated_metadata")
    contents[file] = data.draw(mutated(contents[file]))
    with store.changed({path: json.dumps(document).encode() for path, document in contents.items()}):
        store.try_all(same=False)


def fuzz_chunks(store: Fuzzed, data: st.DataObject) -> None:
    """Change chunks and give them the checksum that they then have."""
    file = data.draw(st.sampled_from(store.chunks))
    body = data.draw(damaged(file.read_bytes()[:-4]))
    with store.changed({file: body + struct.pack("<I", google_crc32c.value(body))}):
        store.try_all(same=False)


FUZZ: dict[str, tuple[str, Callable[[Fuzzed, st.DataObject], None]]] = {
    "bytes of a live store": ("live", fuzz_bytes),
    "bytes of an export": ("export", fuzz_bytes),
    "what the engine's files unpack to": ("live", fuzz_packed),
    "documents": ("export", fuzz_documents),
    "chunks of a live store": ("live", fuzz_chunks),
    "chunks of an export": ("export", fuzz_chunks),
}


@pytest.mark.parametrize("name", FUZZ)
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_strange_stores_raise_only_our_own_errors(name: str, fuzzed: dict[str, Fuzzed], data: st.DataObject) -> None:
    kind, fuzz = FUZZ[name]
    fuzz(fuzzed[kind], data)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", FUZZ)
@settings(max_examples=1_000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_strange_stores_raise_only_our_own_errors(
    name: str, fuzzed: dict[str, Fuzzed], data: st.DataObject
) -> None:
    kind, fuzz = FUZZ[name]
    fuzz(fuzzed[kind], data)


NOTHING_LOADED = """
import sys
import causalunet as cu
try:
    cu.open_results(sys.argv[1])
except cu.CausalUNetError as error:
    print(type(error).__name__)
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("pickle5", "cloudpickle", "dill", "torch")))
"""


@pytest.mark.parametrize("kind", ["export"])
def test_a_strange_codec_loads_nothing(store: Path) -> None:
    rewrite(store, SSIM, DOCUMENTS["pickle"][1])
    done = subprocess.run(
        [sys.executable, "-c", NOTHING_LOADED, str(store)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["DamageError", "[]"]
