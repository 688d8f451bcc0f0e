"""Exports in one file and at addresses of the web: what is read is what was stored, and no more comes than is asked."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet
from werkzeug.serving import BaseWSGIServer, make_server

import causalunet as cu
from causalunet.cli import main
from causalunet.errors import DamageError, StorageError, StoreError
from causalunet.results.engine import archive


@pytest.fixture(scope="module")
def zipped(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cu.open_results(store).export(tmp_path_factory.mktemp("zipped") / "study.zarr.zip")


@dataclass
class Served:
    """Files of a folder at an address, with parts of them, and without lists of folders, as object stores do it."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    server: BaseWSGIServer | None = None

    def start(self) -> str:
        """Begin, and tell the address."""
        app = flask.Flask("served")

        @app.route("/<path:path>")
        def file(path: str) -> Any:
            self.asked.append(path)
            return flask.send_from_directory(self.folder, path, conditional=True)

        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        """End; a second time nothing happens."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


@pytest.fixture
def served(zipped: Path) -> Iterator[Served]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    made = Served(zipped.parent)
    yield made
    made.stop()


def assert_same_tree(one: xr.DataTree, two: xr.DataTree) -> None:
    assert [node.path for node in one.subtree] == [node.path for node in two.subtree]
    for node in one.subtree:
        ours, others = node.to_dataset(), two[node.path].to_dataset()
        for dataset in (ours, others):
            dataset.attrs.clear()
        xr.testing.assert_identical(ours.load(), others.load())


def test_a_file_holds_what_the_store_holds(store: Path, zipped: Path) -> None:
    opened = cu.open_results(zipped)
    assert_same_tree(opened, cu.open_results(store))
    assert opened.verify(quiet=True), str(opened.verify(quiet=True))
    with pytest.raises(StoreError, match="has no history"):
        opened.tag("paper")
    with pytest.raises(StoreError, match=r"study\.zarr\.zip exists"):
        cu.open_results(store).export(zipped)


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("causalunet", "icechunk", "torch")))
import xarray, zarr
with xarray.open_datatree(zarr.storage.ZipStore(sys.argv[1], mode="r"), engine="zarr") as plain:
    values = [node.load() for node in plain.subtree]
    ssim = plain["outcomes/ssim"]
    print(ssim.attrs["units"], ssim.values.tobytes().hex())
"""
"""A stranger's program, which has neither this package nor its storage engine."""


def test_a_file_opens_without_this_package(store: Path, zipped: Path) -> None:
    done = subprocess.run([sys.executable, "-I", "-c", WITHOUT, zipped], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ssim = cu.open_results(store)["outcomes/ssim"]
    assert done.stdout.split() == [ssim.attrs["units"], ssim.values.tobytes().hex()]


def test_a_folder_has_some_two_hundred_files(zipped: Path) -> None:
    with zipfile.ZipFile(zipped) as archived:
        files = [name for name in archived.namelist() if not name.startswith("activation")]
    assert len(files) <= 200, "two for each array, and one for every 8 MB more"


@pytest.mark.thorough
def test_two_exports_are_the_same_file(store: Path, zipped: Path, tmp_path: Path) -> None:
    again = cu.open_results(store).export(tmp_path / "again.zarr.zip")
    assert again.read_bytes() == zipped.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.zarr.zip"], "nothing is left beside it"


def test_only_what_is_asked_for_is_loaded(store: Path, zipped: Path, served: Served) -> None:
    """Opening a file on a server takes some requests for its beginning and end, not one for each array."""
    results = cu.open_results(f"{served.start()}/{zipped.name}")
    np.testing.assert_array_equal(results.outcomes.ssim, cu.open_results(store).outcomes.ssim)
    assert len(served.asked) < 10
    assert_same_tree(results, cu.open_results(store))


@pytest.mark.thorough
def test_a_folder_on_a_server_needs_no_list_of_files(store: Path, served: Served) -> None:
    cu.open_results(store).export(served.folder / "plain.zarr")
    results = cu.open_results(f"{served.start()}/plain.zarr")
    documents = [path for path in served.asked if path.endswith("zarr.json")]
    assert documents == ["plain.zarr/zarr.json"], "what the root says of all arrays is taken from there"
    assert_same_tree(results, cu.open_results(store))
    chunk = next((served.folder / "plain.zarr" / "baseline" / "image").rglob("c/*/*/*/*"))
    chunk.unlink()
    with pytest.raises(DamageError, match=r"the file baseline/image/c/.* is missing"):
        cu.open_results(results.source.location).baseline.image.load()


def test_an_address_of_the_hub_is_asked_of_its_file_system(
    store: Path, zipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub(LocalFileSystem):
        """Whose files lie in a folder."""

        protocol = "hf"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:  # type: ignore[override]
            return str(path).replace("hf://datasets/user/name@v1/", f"{zipped.parent}/")

    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "hf", Hub)
    results = cu.open_results(f"hf://datasets/user/name@v1/{zipped.name}")
    np.testing.assert_array_equal(results.outcomes.ssim, cu.open_results(store).outcomes.ssim)


def test_what_is_not_there_is_told(served: Served, zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_AT_ONCE", 1 << 10)  # this file is no larger than what is read ahead
    (served.folder / "notes.zarr").mkdir(exist_ok=True)
    (served.folder / "notes.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    address = served.start()
    for name, kind, said in (
        ("nothing.zarr.zip", StoreError, "There is nothing at"),
        ("nothing.zarr", StoreError, r"There is nothing at .*, or no export"),
        ("notes.zarr", DamageError, "lacks consolidated metadata"),
    ):
        with pytest.raises(kind, match=said):
            cu.open_results(f"{address}/{name}")
    results = cu.open_results(f"{address}/{zipped.name}")
    served.stop()
    with pytest.raises((StorageError, DamageError), match="Failed reading"):
        results.baseline.load()
    with pytest.raises(StoreError, match="its server cannot be reached"):
        cu.open_results(f"{address}/{zipped.name}")


def test_nothing_is_written_at_an_address(study: cu.Study, tiny_model: Any) -> None:
    with pytest.raises(StoreError, match=r"exports can be read, and nothing can be written"):
        study.run("https://some.host/study.zarr.zip", model=tiny_model, progress=False)
    for address, said in (
        ("https://user:secret@some.host/x.zarr.zip", "credentials"),
        ("https://some.host/x.zarr.zip?token=1", "credentials"),
        ("hf://datasets", "give hf://datasets/user/name/export.zarr.zip"),
        ("ftp://some.host/x.zarr", "cannot be kept at ftp://"),
    ):
        with pytest.raises(StoreError, match=said) as told:
            cu.open_results(address)
        assert "secret" not in str(told.value)


def _without_a_chunk(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
    for name in source.namelist():
        if not name.startswith("outcomes/ssim/c/"):
            target.writestr(name, source.read(name))


def _unpacking(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
    target.writestr("zarr.json", b" " * 10_000_000, zipfile.ZIP_DEFLATED)


def _flipped(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
    for name in source.namelist():
        content = bytearray(source.read(name))
        if name.startswith("outcomes/ssim/c/"):
            content[0] ^= 1
        target.writestr(name, bytes(content))


BROKEN: dict[str, tuple[Callable[[zipfile.ZipFile, zipfile.ZipFile], None], str]] = {
    "without a chunk": (_without_a_chunk, "the file outcomes/ssim/c/.* is missing"),
    "one that unpacks": (_unpacking, "holds 'zarr.json', as no export does"),
    "a flipped bit": (_flipped, "damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_none_are_told(name: str, zipped: Path, tmp_path: Path) -> None:
    change, said = BROKEN[name]
    path = tmp_path / "broken.zarr.zip"
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(path, "w") as target:
        change(source, target)
    with pytest.raises(DamageError, match=said):
        cu.open_results(path).outcomes.ssim.load()


def test_a_file_that_is_cut_off_is_told(zipped: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.zarr.zip"
    path.write_bytes(zipped.read_bytes()[: zipped.stat().st_size // 2])
    with pytest.raises(DamageError, match="not a zip file"):
        cu.open_results(path)


def test_the_command_line_writes_and_lists_files(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, card = tmp_path / "study.zarr.zip", tmp_path / "README.md"
    assert main(["export", str(store), str(path), "--card", str(card)]) == 0
    assert f"Exported: {path}, " in capsys.readouterr().out
    assert "open_results('study.zarr.zip')" in card.read_text()
    assert main(["ls", str(tmp_path)]) == 0
    assert "study.zarr.zip (export)" in capsys.readouterr().out
    assert main(["status", str(path)]) == 0
    assert "an export does not change" in capsys.readouterr().out


def test_the_card_says_what_was_run_and_nothing_that_is_private(results: cu.results.Results) -> None:
    text = cu.report.card(results, "x.zarr.zip", title='A "title" <b>', question="When?", license_id="cc-by-4.0")
    assert text.startswith('---\npretty_name: "A \\"title\\" <b>"\nlicense: cc-by-4.0\n')
    assert '# A "title" &lt;b>\n\nWhen?' in text
    assert "| outcomes/psnr | intervention 8, sample 3 |" in text
    assert "| dB |" in text
    assert str(results.attrs["model_fingerprint"]) in text
    assert "striped cyan" not in text, "prompts may be what nobody else should read"
    assert "license" not in cu.report.card(results)


def test_a_table_of_parquet_says_its_units(results: cu.results.Results, tmp_path: Path) -> None:
    path = results.to_parquet(tmp_path / "cells.parquet", "ssim", "psnr")
    schema = parquet.read_schema(path)
    assert schema.field("psnr").metadata[b"units"] == b"dB"
    assert b"structural similarity" in schema.field("ssim").metadata[b"long_name"]
    assert schema.metadata[b"causalunet.digest"].decode() == results.attrs["digest"]
    table = results.to_frame("ssim", "psnr")
    read = pd.read_parquet(path)
    assert list(read.columns) == list(table.columns)
    np.testing.assert_array_equal(read["ssim"], table["ssim"])
    assert list(read["prompt"]) == list(table["prompt"])
    with pytest.raises(StoreError, match="exists"):
        results.to_parquet(path)
