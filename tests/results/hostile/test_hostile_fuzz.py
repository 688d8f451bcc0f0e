"""Stores with anything changed: our own errors, or what was stored."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

import causalunet as cu
from causalunet.errors import CausalUNetError
from tests.mutations import damaged, mutated
from tests.results.hostile.strangers import put_back, variables

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


@pytest.mark.sampled(1)
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
