"""Flipped bits, deleted and truncated files: an error, never other numbers."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import causalunet as cu
from tests.trust.damage import Reader, all_damaged, chunk_files, cut, damaged, flip
from tests.trust.truth import Truth

Files = dict[str, list[Path]]

BATCH = 20
"""Damaged arrays that one verification is to name."""

CHANGES: dict[str, Callable[[Path], Any]] = {
    "deleted": lambda file: file.unlink(),
    "emptied": cut(lambda size: 0),
    "halved": cut(lambda size: size // 2),
    "without its last byte": cut(lambda size: size - 1),
}


@pytest.fixture(scope="module")
def live(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(truth.path, tmp_path_factory.mktemp("live") / "results.zarr"))


@pytest.fixture(scope="module")
def export(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cu.open_results(truth.path).export(tmp_path_factory.mktemp("export") / "results.zarr")


@pytest.fixture(scope="module", params=["live", "export"])
def stored(request: pytest.FixtureRequest) -> tuple[Path, Files]:
    path: Path = request.getfixturevalue(request.param)
    return path, chunk_files(path)


def flips(stored: tuple[Path, Files], trials: int) -> None:
    """One flipped bit at a time, then many arrays at once for one verification."""
    path, files = stored
    draw, reader, silent = random.Random(0), Reader(path), []
    arrays = [draw.choice(sorted(files)) for _ in range(trials)]
    for array in arrays:
        with damaged(draw.choice(files[array]), flip(draw)):
            if not reader.fails(array):
                silent.append(array)
    print(f"\n{path.parent.name}: {trials} flips, {trials - len(silent)} errors on reading")
    assert silent == []
    for start in range(0, trials, BATCH):
        some = sorted({*arrays[start : start + BATCH]})
        with all_damaged([draw.choice(files[array]) for array in some], flip(draw)):
            assert reader.named() >= {*some}
    assert reader.named() == set()


def test_a_flipped_bit_of_a_chunk_is_an_error(stored: tuple[Path, Files]) -> None:
    flips(stored, 30)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_flipped_bits_are_errors(stored: tuple[Path, Files]) -> None:
    flips(stored, 250)
