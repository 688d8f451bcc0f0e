"""How many files an exported folder has: shards grow before there are too many, and what they hold stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

import causalunet as cu
from causalunet.results.engine import export


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("spare", [0, 3])
def test_shards_grow_until_the_files_are_few_enough(
    spare: int, results: cu.results.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewest = len(files(results.export(tmp_path / "fewest.zarr")))  # one shard for each array
    monkeypatch.setattr(export, "_SHARD_BYTES", [1 << bits for bits in range(8, 24)])
    monkeypatch.setattr(export, "_FILES", 1 << 20)
    assert len(files(results.export(tmp_path / "many.zarr"))) > fewest + 10
    monkeypatch.setattr(export, "_FILES", fewest + spare)
    few = results.export(tmp_path / "few.zarr")
    assert len(files(few)) <= fewest + spare
    assert cu.open_results(few).verify(quiet=True).exit_code == 0
    with xr.open_datatree(few, engine="zarr") as one, xr.open_datatree(tmp_path / "many.zarr", engine="zarr") as two:
        xr.testing.assert_identical(one.load(), two.load())


def test_where_no_size_is_enough_the_smallest_of_the_best_is_taken(
    results: cu.results.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large shards take memory, and would make no fewer files."""
    asked: list[int] = []
    shards = export._shards
    monkeypatch.setattr(export, "_shards", lambda array, most: (asked.append(most), shards(array, most))[1])
    monkeypatch.setattr(export, "_FILES", 0)
    results.export(tmp_path / "plain.zarr")
    assert asked[-1] == min(export._SHARD_BYTES)
