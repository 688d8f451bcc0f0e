"""Looking into stores below what `open_results` shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository


def root_of(path: Path, at: str | None = None) -> zarr.Group:
    """Open the root group as of the newest commit, or of a tag."""
    store = Repository.open(Location.parse(path)).readable(at)
    return zarr.open_group(store, mode="r", zarr_format=3)


def arrays_of(path: Path, at: str | None = None) -> dict[str, zarr.Array[Any]]:
    """Every array by path."""
    return {name: item for name, item in root_of(path, at).members(max_depth=None) if isinstance(item, zarr.Array)}


def assert_same(path: Path, other: Path) -> None:
    """Two stores hold the same numbers, bit for bit; what took how long may differ."""
    one, two = arrays_of(path), arrays_of(other)
    assert one.keys() == two.keys()
    for name in one.keys() - {"audit/seconds"}:
        np.testing.assert_array_equal(one[name][...], two[name][...], err_msg=name)


def chunk_files(path: Path) -> list[Path]:
    """Files of a live store that hold chunks."""
    return sorted(file for file in (path / "chunks").rglob("*") if file.is_file())


def flip_one_byte(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
