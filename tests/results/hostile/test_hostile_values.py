"""Chunks of strangers: what they unpack to is bounded, and what is damaged or missing is no value."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import causalunet as cu
from causalunet.errors import DamageError
from causalunet.results.meaning import lazy
from tests.results.hostile.strangers import (
    SSIM,
    assert_refused,
    both,
    kind_of,
    peak,
    put,
    variables,
)


@pytest.mark.sampled(1)
@both
def test_what_is_sound_is_opened(store: Path, values: dict[str, NDArray[Any]]) -> None:
    opened = dict(variables(cu.open_results(store)))
    assert opened.keys() == values.keys()
    for name, variable in opened.items():
        np.testing.assert_array_equal(variable.values, values[name], err_msg=name)
        assert variable.dtype == values[name].dtype, name


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


@pytest.mark.sampled(8)
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


def test_coordinates_are_not_read_if_they_are_too_large(
    export: Path, chunks_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "_MOST_BYTES", 500)
    assert_refused(export, "bytes of coordinates, and no study more than 500", chunks_read)


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


key_of_axis = st.one_of(
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
    axes = data.draw(st.lists(key_of_axis, min_size=1, max_size=2))
    for axis, key in reversed(list(enumerate(axes))):
        expected = expected[(slice(None),) * axis + (key,)]
    assert not array.variable._in_memory
    np.testing.assert_array_equal(array[tuple(axes)].values, expected)


def test_what_was_opened_can_be_sent_to_another_process(
    originals: dict[str, Path], values: dict[str, NDArray[Any]]
) -> None:
    sent = pickle.loads(pickle.dumps(cu.open_results(originals["live"]).outcomes.ssim))
    np.testing.assert_array_equal(sent, values["/outcomes/ssim"])
