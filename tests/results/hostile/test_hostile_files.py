"""Files of strangers: bombs, links, devices, settings and references out of the store."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import icechunk
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import causalunet as cu
from causalunet.errors import DamageError, StoreError
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.guard import stray_files as folder
from causalunet.results.guard.stray_files import unpacked_bytes
from tests.results.hostile.strangers import both, peak


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


@pytest.mark.parametrize("kind", ["live"])
def test_chunks_are_looked_at_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cu.open_results(store)
    looked: list[str] = []
    entries = folder._entries

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.path, self.name, self.inode, self._entry = entry.path, entry.name, entry.inode, entry

        def stat(self, **options: bool) -> os.stat_result:
            looked.append(self.path)
            return self._entry.stat(**options)

    monkeypatch.setattr(folder, "_entries", lambda path: ((Entry(entry), parts) for entry, parts in entries(path)))
    cu.open_results(store)
    assert looked
    assert not [path for path in looked if "/chunks/" in path]
    (store / "chunks" / "another").touch()
    cu.open_results(store)
    assert [Path(path).name for path in looked if "/chunks/" in path] == ["another"]


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
