"""Both major versions of the storage engine: what they call alike, and stores in a format that one does not read."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr

import causalunet as cu
from causalunet.cli import main
from causalunet.errors import DamageError, StoreError
from causalunet.models.text_to_image import TextToImage
from causalunet.results.engine import backend as engine
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.guard.storage_errors import faults_told
from tests.matrix import sound_store

STUDY = cu.Study(
    name="engines",
    prompts=["a red circle"],
    sampler=cu.DDPM(steps=2, guidance_scale=1.0),
    interventions=cu.sweep(cu.AblateBlock, bottom=2, start=(2, 1), length=1),
)
UNKNOWN = max(2, engine._newest_format() + 1)
"""A format that the installed engine does not read; version 1 of it reads none but the first."""


def head(number: int) -> bytes:
    """How the file ``repo`` begins that a newer engine writes."""
    return "ICE🧊CHUNK".encode() + b"ic-9.0.0".ljust(24) + bytes([number, 6, 1]) + b"(\xb5/\xfd`"


def newer(path: Path) -> None:
    """A new store of a newer engine, which holds results."""
    for name in ("snapshots", "manifests", "transactions", "chunks", "overwritten"):
        (path / name).mkdir(parents=True)
        for number in range(4):
            (path / name / f"0123456789ABCDEFGHJ{number}").write_bytes(b"something")
    (path / "repo").write_bytes(head(UNKNOWN))


def upgraded(path: Path) -> None:
    """A store that was made here and then taken to a newer format, by an engine that leaves the references there."""
    made(path)
    (path / "repo").write_bytes(head(UNKNOWN))


def future(path: Path) -> None:
    newer(path)
    (path / "something-new").mkdir()


def made(path: Path) -> Repository:
    return Repository.create(Location.parse(path), lambda repository: None)


NEWER: dict[str, Callable[[Path], None]] = {"new": newer, "upgraded": upgraded, "of the future": future}


def files_of(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", NEWER)
def test_a_store_of_a_newer_engine_is_told_as_what_it_is(name: str, tmp_path: Path, tiny_model: TextToImage) -> None:
    path = tmp_path / "s.zarr"
    NEWER[name](path)
    before = files_of(path)
    ways: list[Callable[[], Any]] = [
        lambda: cu.open_results(path),
        lambda: cu.open_results(path, at="paper"),
        lambda: Repository.exists(Location.parse(path)),
        lambda: STUDY.run(path, model=tiny_model, progress=False),
        lambda: STUDY.run(path, model=tiny_model, progress=False, overwrite=True),
        lambda: STUDY.search(path, model=tiny_model, progress=False),
    ]
    for way in ways:
        with pytest.raises(
            StoreError, match=r"s\.zarr is not damaged, but written in a newer format of icechunk"
        ) as told:
            way()
        assert not isinstance(told.value, DamageError)
        assert icechunk.__version__ in str(told.value)
        assert "causalunet export" in str(told.value)
    assert files_of(path) == before


@pytest.mark.parametrize("command", ["status", "verify", "ls", "export", "report", "resume"])
def test_commands_tell_a_store_of_a_newer_engine(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer(tmp_path / "s.zarr")
    written = {"export": [str(tmp_path / "export")], "report": [str(tmp_path / "page.html")]}
    assert main([command, str(tmp_path / "s.zarr"), *written.get(command, [])]) == 2
    told = capsys.readouterr().err
    assert "written in a newer format of icechunk" in told
    assert "is damaged" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr"]


def test_a_listing_goes_on_beside_a_store_of_a_newer_engine(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer(tmp_path / "newer.zarr")
    shutil.copytree(store, tmp_path / "older.zarr")
    assert main(["ls", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "older.zarr" in told.out
    assert "newer.zarr is not damaged" in told.err


def as_folder(path: Path) -> None:
    (path / "repo" / "objects").mkdir(parents=True)


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 100, "ICE🧊CHUNK".encode(), None])
def test_a_folder_that_only_looks_newer_is_neither_empty_nor_a_store(
    content: bytes | None, tmp_path: Path, tiny_model: TextToImage
) -> None:
    path = tmp_path / "s.zarr"
    (path / "snapshots").mkdir(parents=True)
    if content is None:
        as_folder(path)
    else:
        (path / "repo").write_bytes(content)
    for way in (lambda: cu.open_results(path), lambda: STUDY.run(path, model=tiny_model, progress=False)):
        with pytest.raises(
            StoreError, match=r"holds 'repo', which is not the file .* nothing is written over it"
        ) as told:
            way()
        assert not isinstance(told.value, DamageError)
    assert sorted(part.name for part in path.iterdir()) == ["repo", "snapshots"]


@pytest.mark.parametrize(
    "text",
    [
        "  x this repository uses Icechunk v2 format, please upgrade the icechunk library\n  |\n",
        "this repository uses Icechunk format version 3, but this library only supports up to version 2. Please",
    ],
)
def test_what_the_engine_says_of_newer_formats_is_no_damage(text: str) -> None:
    where = Location.parse("s3://bucket/a")
    with (
        pytest.raises(StoreError, match=f"{where} is not damaged, but written in a newer format") as told,
        faults_told(where, "opening"),
    ):
        raise icechunk.IcechunkError(text)
    assert not isinstance(told.value, DamageError)


@pytest.mark.parametrize(("python", "way"), [((3, 11, 7), "use Python 3.12 or later"), ((3, 13, 0), "pip install")])
def test_the_way_to_open_it_fits_the_interpreter(
    python: tuple[int, ...], way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer(tmp_path / "s.zarr")
    monkeypatch.setattr("causalunet.results.guard.storage_errors.sys.version_info", python)
    with pytest.raises(StoreError, match=way):
        cu.open_results(tmp_path / "s.zarr")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("form", ["text", "mapping"])
def test_either_form_of_a_commit_is_read(
    form: str, store: Path, copied: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 1 describes a commit as JSON text, version 2 as a mapping."""
    inspect_snapshot = icechunk.Repository.inspect_snapshot

    def inspected(self: icechunk.Repository, commit: str) -> Any:
        found: Any = inspect_snapshot(self, commit)
        document = json.loads(found) if isinstance(found, str) else found
        return json.dumps(document) if form == "text" else document

    monkeypatch.setattr(icechunk.Repository, "inspect_snapshot", inspected)
    assert cu.open_results(store).verify(quiet=True)
    path = copied()
    repository = Repository.open(Location.parse(path))
    session = repository.writable()
    zarr.open_group(session.store, mode="a").attrs["note"] = "more"
    repository.commit(session, "more", {})
    assert cu.open_results(path).attrs["note"] == "more"
    assert (path / "sums").read_bytes().count(b"manifests/") >= (store / "sums").read_bytes().count(b"manifests/") > 0


def test_new_stores_have_the_format_that_every_version_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 of the engine makes stores in a format that version 1 refuses, unless told otherwise."""
    create, chosen = icechunk.Repository.create, []
    has_choice = "spec_version" in engine.inspect.signature(create).parameters

    def with_choice(storage: Any, config: Any = None, spec_version: int | None = None) -> icechunk.Repository:
        chosen.append(spec_version)
        more = {"spec_version": spec_version} if has_choice else {}
        return create(storage, config=config, **more)

    def without_choice(storage: Any, config: Any = None) -> icechunk.Repository:
        chosen.append(None)
        return create(storage, config=config, **({"spec_version": 1} if has_choice else {}))

    for number, version in enumerate((with_choice, without_choice)):
        monkeypatch.setattr(icechunk.Repository, "create", version)
        path = tmp_path / f"{number}.zarr"
        made(path)
        assert (path / "refs").is_dir()
        assert not (path / "repo").exists()
    assert chosen == [1, None]


@pytest.mark.thorough
def test_settings_are_read_as_either_version_writes_them(store: Path, copied: Callable[[], Path]) -> None:
    """Version 2 writes out what it would do on a disk anyway, version 1 does not."""
    path = copied()
    written = "{concurrency: {max_concurrent_requests_for_object: 5, ideal_concurrent_request_size: 4096}, "
    written += "retries: {max_tries: 1, initial_backoff_ms: 0, max_backoff_ms: 0}, timeouts: null, "
    written += "unsafe_use_conditional_update: false, unsafe_use_conditional_create: null, unsafe_use_metadata: false, "
    written += "storage_class: null, metadata_storage_class: null, chunks_storage_class: null, "
    written += "minimum_size_for_multipart_upload: null}"
    sound = (path / "config.yaml").read_text()
    without = re.sub(r"^storage:.*?^(?=\w)", "storage: null\n", sound, flags=re.MULTILINE | re.DOTALL)
    for text in (written, "null"):
        (path / "config.yaml").write_text(without.replace("storage: null", f"storage: {text}"))
        assert cu.open_results(path).verify(quiet=True)
    for changed in (written.replace("4096", "1"), written.replace("max_tries: 1", "max_tries: 60000")):
        (path / "config.yaml").write_text(without.replace("storage: null", f"storage: {changed}"))
        with pytest.raises(DamageError, match=r"settings in config\.yaml that no study writes: storage"):
            cu.open_results(path)


def test_what_a_commit_added_is_what_it_says(results: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 adds notes of its own to every commit."""
    newest = results.history()[0]
    assert newest.added["cells"] > 0
    ancestry = icechunk.Repository.ancestry

    def noted(self: icechunk.Repository, **place: Any) -> Iterator[Any]:
        for info in ancestry(self, **place):
            metadata = {**info.metadata, "__icechunk": {"rebase_attempts": 0}}
            yield SimpleNamespace(id=info.id, written_at=info.written_at, message=info.message, metadata=metadata)

    monkeypatch.setattr(icechunk.Repository, "ancestry", noted)
    assert results.history()[0] == newest


def test_the_engine_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.zarr"
    repository = made(path)
    session = repository.writable()
    zarr.open_group(session.store, mode="a")
    repository.commit(session, "first", {})
    repository.tag("paper", repository.newest())
    repository.history()
    assert Repository.exists(Location.parse(path))
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_no_array_is_opened_while_another_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the newest zarr and icechunk a run that does comes to no end, every now and then."""
    sound_store.lay_out(tmp_path / "results.zarr")
    writer = StudyWriter(Repository.open(Location.parse(tmp_path / "results.zarr")))
    content, write, find = sound_store.values(), zarr.Array.__setitem__, zarr.Group.__getitem__
    under_way, overlaps = threading.Event(), 0

    def slowly(array: zarr.Array, index: object, values: object) -> None:
        under_way.set()
        time.sleep(0.01)
        write(array, index, values)
        under_way.clear()

    def opened(group: zarr.Group, path: str) -> zarr.Array | zarr.Group:
        nonlocal overlaps
        overlaps += under_way.is_set()
        return find(group, path)

    monkeypatch.setattr(zarr.Array, "__setitem__", slowly)
    monkeypatch.setattr(zarr.Group, "__getitem__", opened)
    for path, values in content.items():
        writer.write(path, (), values)
        assert writer.has(path)
        time.sleep(0.005)  # long enough for the write to begin
    writer.commit("all", {})
    assert overlaps == 0
    np.testing.assert_array_equal(writer.read("outcomes/ssim"), content["outcomes/ssim"])
