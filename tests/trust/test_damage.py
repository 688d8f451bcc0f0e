"""Flipped bits, deleted and truncated files: an error, never other numbers."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import pytest

import causalunet as cu
from causalunet.results.meaning.declaration import ORDINARY
from tests.trust.damage import Reader, all_damaged, chunk_files, cut, damaged, flip
from tests.trust.truth import Truth, Values, read, same

Files = dict[str, list[Path]]

BATCH = 20
"""Damaged arrays that one verification is to name."""

CHANGES: dict[str, Callable[[Path], Any]] = {
    "deleted": lambda file: file.unlink(),
    "emptied": cut(lambda size: 0),
    "halved": cut(lambda size: size // 2),
    "without its last byte": cut(lambda size: size - 1),
}


changed = pytest.mark.parametrize(
    "change", [*list(CHANGES)[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in list(CHANGES)[2:])]
)


@pytest.fixture(scope="module")
def live(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(truth.path, tmp_path_factory.mktemp("live") / "results.zarr"))


@pytest.fixture(scope="module")
def export(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cu.open_results(truth.path).export(tmp_path_factory.mktemp("export") / "results.zarr")


@pytest.fixture(scope="module")
def live_files(live: Path) -> Files:
    return chunk_files(live)


@pytest.fixture(scope="module")
def export_files(export: Path) -> Files:
    return chunk_files(export)


@pytest.fixture(params=["live", "export"])
def stored(request: pytest.FixtureRequest) -> tuple[Path, Files]:
    return request.getfixturevalue(request.param), request.getfixturevalue(f"{request.param}_files")


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


@pytest.mark.thorough
def test_a_flipped_bit_of_a_chunk_is_an_error(stored: tuple[Path, Files]) -> None:
    flips(stored, 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_flipped_bits_are_errors(stored: tuple[Path, Files]) -> None:
    flips(stored, 250)


@pytest.mark.sampled(1)
@changed
def test_damaged_chunk_files_of_a_live_store_are_errors(live: Path, live_files: Files, change: str) -> None:
    files, reader = live_files, Reader(live)
    silent = []
    for array in filter(ORDINARY.variable_at, files):
        with damaged(files[array][-1], CHANGES[change]):
            if not reader.fails(array):
                silent.append(array)
    assert silent == []
    with all_damaged([of_array[0] for of_array in files.values()], CHANGES[change]):
        assert reader.named() >= files.keys(), "verification names them all, coordinates too"


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_coordinates_that_are_damaged_are_errors(live: Path, live_files: Files, change: str) -> None:
    files, reader = live_files, Reader(live)
    for array in set(files) - set(filter(ORDINARY.variable_at, files)):
        with damaged(files[array][0], CHANGES[change]):
            assert reader.fails(array), array


@pytest.mark.thorough
@changed
def test_damaged_chunk_files_of_an_export_are_errors(export: Path, export_files: Files, change: str) -> None:
    files, reader = export_files, Reader(export)
    arrays = list(filter(ORDINARY.variable_at, files))
    for array in arrays:
        with damaged(files[array][0], CHANGES[change]):
            assert reader.fails(array), array
    for array in random.Random(0).sample(arrays, 3):
        with damaged(files[array][0], CHANGES[change]):
            assert array in reader.named(), "found when it is the only one"
    with all_damaged([of_array[0] for of_array in files.values()], CHANGES[change]):
        assert reader.named() >= files.keys()


Everything = tuple[Values, str, list[cu.results.Commit]]


def everything(path: Path) -> Everything:
    """All that a store says: values, attributes, history."""
    results = cu.open_results(path)
    attributes = {
        node.path: [node.attrs, {name: variable.attrs for name, variable in node.variables.items()}]
        for node in results.subtree
    }
    return read(results), json.dumps(attributes, sort_keys=True), results.history()


def equal(one: Everything, two: Everything) -> bool:
    values, others = one[0], two[0]
    return (
        one[1:] == two[1:] and values.keys() == others.keys() and all(same(values[k][1], others[k][1]) for k in values)
    )


def flips_beside_chunks(path: Path, trials: int) -> None:
    """One flipped bit at a time in what is no chunk; every kind of file as often as any other."""
    whole, draw, counts, silent = everything(path), random.Random(0), Counter[str](), []
    files = defaultdict(list)
    for file in sorted(path.rglob("*")):
        kind = file.relative_to(path).parts[0]
        if file.is_file() and file.stat().st_size and kind not in ("chunks", "locks"):
            files[kind].append(file)
    newest = path / "snapshots" / cu.open_results(path).history()[0].id
    files["newest snapshot"] = [newest]
    for _ in range(trials):
        kind = draw.choice(sorted(files))
        file = draw.choice(files[kind])
        with damaged(file, flip(draw)):
            try:
                found = everything(path)
            except (cu.CausalUNetError, icechunk.IcechunkError):
                counts[f"{kind}: an error"] += 1
                continue
            counts[f"{kind}: no difference"] += 1
            if not equal(found, whole):
                silent.append(file.relative_to(path))
    print(f"\n{trials} flips beside chunks: {dict(sorted(counts.items()))}")
    assert silent == []


@pytest.mark.thorough
def test_a_flipped_bit_beside_the_chunks_changes_nothing_silently(live: Path) -> None:
    flips_beside_chunks(live, 15)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_flipped_bits_beside_the_chunks_change_nothing_silently(live: Path) -> None:
    flips_beside_chunks(live, 300)
