"""Documents of strangers: refused in words before any chunk is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import causalunet as cu
from causalunet.errors import DamageError, PluginError, StoreError
from causalunet.results.guard.checked_store import check_specs
from tests.analysis.synthetic import edited
from tests.results.hostile.strangers import (
    SSIM,
    Document,
    assert_refused,
    both,
    named,
    put,
    put_back,
    read,
    reread,
    rewrite,
    without,
)

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


@pytest.mark.sampled(38)
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
    "format_version": [None, 1, 4, 3.0, "3", True, 10**5000],
    "declaration": [None, 5, [], "x", {}, {"variables": {}}],
    "layout_id": [5, None],
    "block": [None, 0, -1, True, 2.0, "2", 10**30],
    "group": [None, 0, -1, True, 2.0, "2", 10**30],
    "study": [None, "x", [], 5, {"name": 5}, {"sampler": 5}, {"sampler": {"configuration": 5}}, {"prompts": "x"}],
    "digest": [None, 5, ["x"]],
    "model_fingerprint": [5, {}],
    "identity": [5, [], {"tokens": 5}, {"tokens": {"a": 5}}],
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
                or "what it declares of itself" in str(error.value)
            )
            assert chunks_read == []
            assert len(str(error.value)) < 1_500


def test_attributes_that_are_not_there_are_no_damage(export: Path) -> None:
    for name in ATTRIBUTES.keys() - {"format", "format_version", "declaration", "block"}:
        with put_back(export / "zarr.json"):
            rewrite(export, "", lambda d, name=name: d.update(attributes=without(d["attributes"], name)))  # type: ignore[misc]
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
    with pytest.raises(PluginError, match=r"the kind 'mine'.*import the modules"):
        reread(store)


NOTHING_LOADED = """
import contextlib
import sys
import xarray
import causalunet as cu
SUCH = ("pickle5", "cloudpickle", "dill", "torch")
with contextlib.suppress(ImportError):
    import dask.base  # which xarray looks for, and which loads cloudpickle for itself
before = set(sys.modules)
assert not {"torch", "dill"} & before
try:
    cu.open_results(sys.argv[1])
except cu.CausalUNetError as error:
    print(type(error).__name__)
print(sorted(name for name in set(sys.modules) - before if name.partition(".")[0] in SUCH))
"""


@pytest.mark.parametrize("kind", ["export"])
def test_a_strange_codec_loads_nothing(store: Path) -> None:
    rewrite(store, SSIM, DOCUMENTS["pickle"][1])
    done = subprocess.run(
        [sys.executable, "-c", NOTHING_LOADED, str(store)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["DamageError", "[]"]
