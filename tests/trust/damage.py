"""Damage to the files of a store, one at a time, and which array each file belongs to."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import causalunet as cu
from causalunet.results.meaning.declaration import ORDINARY


def chunk_files(path: Path) -> dict[str, list[Path]]:
    """Files of the chunks of every array, as of the newest commit."""
    results = cu.open_results(path)
    store: Any = results.source.store
    arrays = [name for name, item in zarr.open_group(store, mode="r").members(None) if isinstance(item, zarr.Array)]
    files: dict[str, list[Path]] = defaultdict(list)
    if (path / "zarr.json").exists():
        return {name: sorted(file for file in (path / name / "c").rglob("*") if file.is_file()) for name in arrays}

    def content(key: str) -> bytes:
        return bytes(sync(store.get(key, default_buffer_prototype())).to_bytes())

    async def listed() -> list[str]:
        return [key async for key in store.list() if "/c/" in key]

    keys: dict[bytes, list[str]] = defaultdict(list)
    for key in sync(listed()):
        keys[content(key)].append(key)
    for file in sorted((path / "chunks").iterdir()):
        alike = keys.get(file.read_bytes(), [])  # none: only history has it
        with damaged(file, lambda file: file.unlink()):
            for key in alike:
                if _fails(lambda key=key: content(key)):  # type: ignore[misc]
                    files[key.partition("/c/")[0]].append(file)
    return files


def _fails(read: Callable[[], Any]) -> bool:
    try:
        read()
    except Exception:
        return True
    return False


@contextmanager
def damaged(file: Path, change: Callable[[Path], Any]) -> Iterator[None]:
    """Change a file for a while."""
    content = file.read_bytes()
    try:
        change(file)
        yield
    finally:
        file.write_bytes(content)


def flip(draw: random.Random) -> Callable[[Path], None]:
    """Flip one random bit."""

    def change(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)

    return change


def cut(keep: Callable[[int], int]) -> Callable[[Path], None]:
    """Keep only the beginning of a file."""

    def change(file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: keep(len(content))])

    return change


class Reader:
    """Reads arrays through `open_results`, again every time.

    Parameters
    ----------
    path : Path
        Of a store that is sound when this is made.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.results = path, cu.open_results(path)

    def read(self, array: str) -> NDArray[Any]:
        """Read one array in full."""
        # Coordinates are loaded by opening; other values are read when asked for, and kept unless that fails.
        results: xr.DataTree = self.results if ORDINARY.variable_at(array) else cu.open_results(self.path)
        return np.asarray(results[array].variable.copy(deep=False).values)

    def fails(self, array: str) -> bool:
        """Whether reading an array is an error."""
        return _fails(lambda: self.read(array))

    def named(self) -> set[str]:
        """Arrays that verification finds fault with."""
        found = self.results.verify(quiet=True)
        named = {problem.split(":")[0] for finding in found.findings for problem in finding.problems if finding.damage}
        assert bool(named) == (found.exit_code == 1)
        return named


@contextmanager
def all_damaged(files: list[Path], change: Callable[[Path], Any]) -> Iterator[None]:
    """Change several files for a while."""
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(damaged(file, change))
        yield
