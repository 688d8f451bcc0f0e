"""Folders that hold no store, or no store any more: told as what they are, and run into where nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zarr

import causalunet as cu
from causalunet.cli import main
from causalunet.errors import DamageError, StorageError, StoreError
from causalunet.models.text_to_image import TextToImage
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter

STUDY = cu.Study(
    name="places",
    prompts=["a red circle"],
    sampler=cu.DDPM(steps=2, guidance_scale=1.0),
    interventions=[cu.AblateBlock(2, cu.Window(2, 1)), cu.AblateSkip(1, cu.Window(1, 1))],
)


def nothing(repository: Repository) -> None:
    """Lay out nothing."""


def commit_to(repository: Repository, number: int) -> None:
    session = repository.writable()
    zarr.open_group(session.store, mode="a").attrs["number"] = number
    repository.commit(session, f"number {number}", {})


def leftover_chunk(path: Path) -> None:
    (path / "chunks").mkdir(parents=True)
    (path / "chunks" / "0123456789ABCDEFGHJK").write_bytes(b"of a store that was deleted")


def with_git(path: Path) -> None:
    path.mkdir()
    (path / ".gitkeep").touch()


def cut_off(path: Path) -> None:
    """What a creation into an existing folder leaves that is killed before its last move."""
    Repository.create(Location.parse(path), nothing)
    shutil.rmtree(path / "refs")


EMPTY: dict[str, Callable[[Path], None]] = {
    "empty": Path.mkdir,
    "chunks": lambda path: (path / "chunks").mkdir(parents=True),
    "a leftover chunk": leftover_chunk,
    "locks": lambda path: (path / "locks").mkdir(parents=True),
    ".gitkeep": with_git,
    "an empty disk": lambda path: (path / "lost+found").mkdir(parents=True),
    "a creation that was cut off": cut_off,
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_folder_in_which_nothing_is_lost_takes_a_store(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.zarr"
    EMPTY[name](path)
    there = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert not Repository.exists(Location.parse(path))
    with pytest.raises(StoreError, match=r"is not a results store: it has neither refs nor zarr\.json") as caught:
        cu.open_results(path)
    assert not isinstance(caught.value, DamageError)
    assert main(["verify", str(path)]) == 2
    assert "damage" not in capsys.readouterr().err
    repository = Repository.create(Location.parse(path), nothing)
    commit_to(repository, 1)
    assert [commit.message for commit in repository.history()] == ["number 1", "Repository initialized"]
    kept = {file: content for file, content in there.items() if "chunks" in file.parts or file.name == ".gitkeep"}
    assert all(file.read_bytes() == content for file, content in kept.items())
    assert all(file.is_file() for file in there), "nothing is deleted"
    assert Repository.exists(Location.parse(path))
    assert not list(path.glob(".s.zarr.*")), "nothing is left behind"


def test_a_disk_of_its_own_is_never_renamed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between disks nothing can be renamed: all that is made beside lies within the folder that is there."""
    path, moved = tmp_path / "s.zarr", []
    path.mkdir()
    replace = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        moved.append((self, target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    Repository.create(Location.parse(path), nothing)
    assert moved
    assert all(path in source.parents and path in target.parents for source, target in moved)
    assert moved[-1][1].name == "refs", "whoever looks sees the store whole, or not at all"


def test_who_comes_second_opens_the_store_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    path.mkdir()

    def overtaken(repository: Repository) -> None:
        if repository.location.folder != path:
            commit_to(Repository.create(Location.parse(path), nothing), 1)

    repository = Repository.create(Location.parse(path), overtaken)
    assert repository.history()[0].message == "number 1"


def test_results_without_references_are_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    repository = Repository.create(Location.parse(path), nothing)
    for number in range(3):
        commit_to(repository, number)
    (path / "refs").rename(tmp_path / "kept")
    for attempt in (Repository.exists, cu.open_results):
        with pytest.raises(DamageError, match="holds results, and lacks the folder refs"):
            attempt(Location.parse(path))
    (tmp_path / "kept").rename(path / "refs")
    assert Repository.open(Location.parse(path)).history()[0].message == "number 2"


def test_a_store_deleted_under_a_run_is_told_and_begun_anew(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, commit = tmp_path / "s.zarr", StudyWriter.commit

    def deleted_before(self: StudyWriter, message: str, added: dict[str, object]) -> None:
        if "cells" in added:
            self.read("outcomes/status")  # all that was to be written is
            shutil.rmtree(path)
            leftover_chunk(path)
        commit(self, message, added)

    with monkeypatch.context() as patch:
        patch.setattr(StudyWriter, "commit", deleted_before)
        with pytest.raises(StorageError, match="is gone: it was deleted, moved or unmounted while it was in use"):
            STUDY.run(path, model=tiny_model, progress=False)
    results = STUDY.run(path, model=tiny_model, progress=False)
    assert results.verify(quiet=True)
    shutil.rmtree(path)
    for use in (lambda: results.outcomes.ssim.values, results.history, lambda: results.tag("a")):
        with pytest.raises(StorageError, match="is gone: it was deleted"):
            use()


def test_the_working_directory_is_a_place_like_others(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run into ".", which the process leaves before it ends; what was opened there stays where it was."""
    decode, (here, other) = TextToImage.decode, (tmp_path / "here", tmp_path / "other")
    here.mkdir()
    other.mkdir()
    monkeypatch.chdir(here)

    def leaving(self: TextToImage, x0: object) -> object:
        monkeypatch.chdir(other)
        return decode(self, x0)  # type: ignore[arg-type]

    monkeypatch.setattr(TextToImage, "decode", leaving)
    results = STUDY.run(".", model=tiny_model, progress=False)
    assert Path.cwd() == other
    assert not list(other.iterdir())
    assert str(results.source.location) == "."
    assert results.verify(quiet=True)
    results.tag("kept")
    assert cu.open_results(here, at="kept").outcomes.ssim.notnull().all()
