"""Paths as users give them: the home folder, folders above, and what is no path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import causalunet as cu
from causalunet.errors import CausalUNetError, SpecError, StoreError
from causalunet.paths import given_path
from causalunet.results.engine.location import Location

SHORTCUT = cu.Shortcut(name="short", intervention=cu.SkipSteps(cu.Window(2, 2)))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another to work in."""
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.sampled(6)
@pytest.mark.parametrize("path", [None, 5, b"x.zarr", "", "a\0b", ["x"], 1.5])
def test_what_is_no_path(path: Any) -> None:
    tried = [
        lambda: given_path(path),
        lambda: cu.open_results(path),
        lambda: Location.parse(path),
        lambda: SHORTCUT.save(path),
        lambda: cu.Shortcut.open(path),
        lambda: cu.load_model("shapes", checkpoint=path) if path is not None else given_path(path),
    ]
    for attempt in tried:
        with pytest.raises(CausalUNetError, match=r"is no path\. Give text or a pathlib\.Path"):
            attempt()


def test_the_home_folder(home: Path) -> None:
    assert Location.parse("~/x.zarr").folder == home / "x.zarr"
    assert Location.parse(Path("~/x.zarr")).folder == home / "x.zarr"
    assert str(Location.parse("~/x.zarr")) == "~/x.zarr"
    assert SHORTCUT.save("~/short.json") == home / "short.json"
    assert cu.Shortcut.open("~/short.json") == SHORTCUT
    assert not list(Path().iterdir())


def test_a_home_folder_that_is_not_known() -> None:
    for error, attempt in ((StoreError, cu.open_results), (SpecError, cu.Shortcut.open)):
        with pytest.raises(error, match="home folder that '~nobody-of-that-name/x' begins with is not known"):
            attempt("~nobody-of-that-name/x")


def test_folders_above_are_followed(tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere" / "inner"
    elsewhere.mkdir(parents=True)
    (work / "link").symlink_to(elsewhere)
    assert given_path("base.zarr/../x.zarr") == work / "x.zarr"
    assert given_path("../x.zarr") == tmp_path / "x.zarr"
    assert given_path("link/../x.zarr") == tmp_path / "elsewhere" / "x.zarr"  # as the system follows links
    assert given_path("link") == Path("link")
    assert Location.parse("base.zarr/../x.zarr") == Location.parse("x.zarr")


@pytest.mark.thorough
def test_a_store_beside_another_is_reached_through_it(run_study: Any, home: Path) -> None:
    results = run_study(cu.SkipSteps(cu.Window(1, 1)), steps=2)
    folder = results.source.location.folder
    beside = folder / ".." / "beside.zarr"
    assert cu.open_results(results.export(beside)).outcomes.equals(cu.open_results(beside).outcomes)
    assert (folder.parent / "beside.zarr").is_dir()
    assert results.export("~/exported.zarr") == home / "exported.zarr"
    with pytest.raises(StoreError, match="lies inside the store"):
        results.export(folder / "inner")
