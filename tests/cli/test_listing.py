"""Listing stores, and what is in one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zarr

import causalunet as cu
from causalunet.cli.listing import stores_below
from causalunet.results.meaning.schema import VARIABLES
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def exported(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cu.open_results(store).export(tmp_path_factory.mktemp("exported") / "export.zarr")


@pytest.fixture
def folder(store: Path, exported: Path, tmp_path: Path) -> Path:
    """A live store, an export three folders down, and what is neither."""
    shutil.copytree(store, tmp_path / "live.zarr")
    shutil.copytree(exported, tmp_path / "a" / "b" / "export.zarr")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "zarr.txt").write_text("")
    return tmp_path


@pytest.mark.thorough
def test_every_store_below_a_folder_is_listed(folder: Path, command: Command) -> None:
    told = command("ls", folder)
    assert (told.code, told.err) == (0, "")
    head, live, export = told.out.splitlines()
    assert head.split() == ["cells", "size", "changed", "model", "study", "store", "tags"]
    assert re.fullmatch(r"12/12 +[\d.]+ kB  \d{4}-\d\d-\d\d \d\d:\d\d  tiny +a tiny study +live\.zarr +paper-v1", live)
    assert re.search(r"12/12 .* a/b/export\.zarr \(export\)$", export)
    assert live.index("tiny") == export.index("tiny") == head.index("model")


def test_results_are_looked_for_first(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert "live.zarr" in command("ls").out
    (folder / "results").mkdir()
    assert command("ls").out == "No results stores in results, down to 4 folders below it.\n"


def test_a_store_that_cannot_be_read_does_not_end_the_list(folder: Path, command: Command) -> None:
    zarr.create_group(folder / "foreign.zarr").create_array("ssim", shape=(3,), dtype="f4")
    (folder / "cut.zarr" / "snapshots").mkdir(parents=True)
    told = command("ls", folder)
    assert told.code == 2
    assert told.err.count("\n") == 2
    assert "foreign.zarr is a zarr store, but not one of causalunet's results" in told.err
    assert told.out.count("12/12") == 2


def test_neither_links_nor_hidden_folders_nor_the_depths_are_searched(tmp_path: Path) -> None:
    def store_at(*parts: str) -> Path:
        path = tmp_path.joinpath("top", *parts)
        (path / "snapshots").mkdir(parents=True)
        return path

    near, far = store_at("b.zarr"), store_at("1", "2", "3", "a.zarr")
    store_at("1", "2", "3", "4", "too_deep.zarr")
    store_at(".hidden", "x.zarr")
    store_at("b.zarr", "inside.zarr")
    (tmp_path / "top" / "loop").symlink_to(tmp_path / "top")
    assert list(stores_below(tmp_path / "top")) == [near, far]


def test_every_variable_of_a_store_is_told(store: Path, command: Command) -> None:
    told = command("ls", store)
    assert (told.code, told.err) == (0, "")
    assert max(map(len, told.out.splitlines()[1:])) <= 80
    printed = " ".join(told.out.split())
    results = cu.open_results(store)
    for node in results.subtree:
        for name, array in node.data_vars.items():
            dims = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
            assert re.search(rf"\n  {name} .*", told.out), name
            assert f"({dims}) {array.attrs['long_name']}" in printed, (node.path, name)
    groups = re.findall(r"\n\n(\S+)\n", told.out)
    assert groups == ["baseline", "outcomes", "trajectory", "activations/mid", "audit", "coordinates"]
    assert re.search(r"\n  intervention: bottom, branch, component, [^:]*kind", told.out)
    units = {variable.units for variable in VARIABLES} - {"1"}
    assert all(f", in {unit}" in printed for unit in units)


def test_history_names_commits_that_can_be_opened(store: Path, command: Command) -> None:
    told = command("ls", store, "--history")
    assert told.code == 0
    rows = re.findall(r"^[\d-]{10} [\d:]{5}  (\S+)  (.*)$", told.out, flags=re.MULTILINE)
    messages = [" ".join(message.split()) for _, message in rows]
    assert messages == ["12 cells of 3 samples (paper-v1)", "a study laid out", "Repository initialized"]
    assert command("ls", store, "--at", rows[1][0]).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda path: (path / "none",), "does not exist"),
        (lambda path: (path / "file",), "is not a folder"),
        (lambda path: (path, "--history"), "only a store has a history"),
        (lambda path: (path, "--at", "v1"), "only a store has a history"),
        (lambda path: ("ftp://x/y",), "ftp:// addresses"),
    ],
)
def test_what_cannot_be_listed_is_told(
    tmp_path: Path, command: Command, arguments: Callable[[Path], tuple[object, ...]], message: str
) -> None:
    (tmp_path / "file").write_text("")
    told = command("ls", *arguments(tmp_path))
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert message in told.err
