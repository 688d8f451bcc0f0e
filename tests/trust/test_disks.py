"""Disks that are full, read-only or refuse: a clear error, nothing torn, and the same command goes on."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import causalunet as cu
from causalunet.errors import StorageError
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.store import store_exists
from tests.trust import small
from tests.trust.disks import Disk, small_disk
from tests.trust.truth import Truth

SIZE = 16 << 20
NEEDED = 3 << 20
"""Bytes of disk that the study takes, at 4 KiB for each of its small files, and more than that."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", SIZE) as mounted:
        yield mounted


def fill_up(truth: Truth, disk: Disk, free: int) -> int:
    """Run until the disk is full, look, make room and run again; gives the number of cells that were stored before."""
    store = disk.path / "results.zarr"
    disk.leave_free(free)
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        small.run(store)
    cells = 0
    if store_exists(store):
        seen = truth.compare(cu.open_results(store))
        assert seen.wrong == []
        assert not seen.whole
        cells = len(seen.cells)
    disk.free()
    seen = truth.compare(small.run(store))
    assert (seen.wrong, seen.whole) == ([], True)
    assert sorted(entry.name for entry in disk.path.iterdir()) == ["results.zarr"], "nothing else is left"
    shutil.rmtree(store)
    return cells


@pytest.mark.thorough
@pytest.mark.usefixtures("small_groups")
def test_a_full_disk_is_told_and_loses_nothing(truth: Truth, disk: Disk) -> None:
    assert fill_up(truth, disk, 1_700_000) > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("small_groups")
def test_disks_that_are_full_at_any_moment(truth: Truth, disk: Disk) -> None:
    draw = random.Random(0)
    cells = [
        fill_up(truth, disk, draw.randrange(*draw.choice([(0, 1_200_000), (1_200_000, 2_000_000)]))) for _ in range(20)
    ]
    print(f"\n{len(cells)} times the disk was full, after {sorted(cells)} cells")
    assert len({*cells}) > 2


@pytest.mark.thorough
@pytest.mark.usefixtures("small_groups")
def test_what_lies_on_a_read_only_disk_is_read_and_verified(truth: Truth, disk: Disk) -> None:
    store = shutil.copytree(truth.path, disk.path / "results.zarr")
    disk.read_only(True)
    results = cu.open_results(store)
    assert truth.compare(results).wrong == []
    assert results.verify(quiet=True)
    assert len(results.history()) == small.PARTS + 2
    for change in (lambda: small.run(store), lambda: small.run(disk.path / "new.zarr"), lambda: results.tag("v1")):
        with pytest.raises(StorageError, match="mounted read-only; mount it for writing"):
            change()
    disk.read_only(False)
    assert truth.compare(small.run(store)).whole


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a test may refuse permissions."""
    folder = tmp_path / "refusing"
    folder.mkdir()
    yield folder
    for entry in [folder, *folder.rglob("*")]:
        if entry.is_dir() or entry.name == "sums":
            allow(entry)


def refuse(place: Path) -> None:
    """Take away the permission to write into a folder or file, from root too."""
    if os.geteuid():
        place.chmod(0o500)
    elif shutil.which("chattr") is None or subprocess.run(["chattr", "+i", str(place)], check=False).returncode:
        pytest.skip("root has every permission, and files cannot be made immutable here")


def allow(place: Path) -> None:
    if os.geteuid():
        place.chmod(0o700)
    else:
        subprocess.run(["chattr", "-i", str(place)], check=False)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.slow
@pytest.mark.parametrize("part", ["chunks", "manifests", "snapshots", "refs/branch.main", "transactions", "sums"])
def test_lost_permission_is_told(truth: Truth, refusing: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    store = refusing / "results.zarr"
    commit, commits = StudyWriter.commit, iter(range(100))

    def then_refused(writer: StudyWriter, *arguments: object) -> None:
        commit(writer, *arguments)  # type: ignore[arg-type]
        if next(commits) == 2:
            refuse(store / part)

    with monkeypatch.context() as patch:
        patch.setattr(StudyWriter, "commit", then_refused)
        with pytest.raises(StorageError, match="permission was denied; give this user the right to write there"):
            small.run(store)
    assert truth.compare(cu.open_results(store)).wrong == []
    assert len(truth.compare(cu.open_results(store)).cells) > 0
    allow(store / part)
    assert truth.compare(small.run(store)).whole
