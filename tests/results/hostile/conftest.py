"""One small store, live and exported; tests break copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from zarr.storage import LocalStore

import causalunet as cu
from causalunet.design import AblateBlock, SkipSteps, Window
from tests.analysis.synthetic import write_results
from tests.results.hostile.strangers import variables


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small store, live and exported; not to be changed."""
    path = tmp_path_factory.mktemp("originals")
    items = [AblateBlock(2, Window(4, 2)), AblateBlock(3, Window(3, 1)), SkipSteps(Window(2, 1))]
    results = write_results(path / "live", items, samples=4, steps=4, block=2)
    return {"live": path / "live", "export": results.export(path / "export")}


@pytest.fixture(scope="session")
def opened(originals: dict[str, Path]) -> dict[str, xr.DataTree]:
    """Both, opened once; whole variables are not to be read."""
    return {kind: cu.open_results(path) for kind, path in originals.items()}


@pytest.fixture(scope="session")
def values(originals: dict[str, Path]) -> dict[str, NDArray[Any]]:
    """What the store holds."""
    return {name: np.asarray(variable.values) for name, variable in variables(cu.open_results(originals["live"]))}


@pytest.fixture(scope="session")
def export(originals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the export whose documents tests change and put back."""
    return Path(shutil.copytree(originals["export"], tmp_path_factory.mktemp("export") / "store"))


@pytest.fixture
def store(kind: str, originals: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(originals[kind], tmp_path / "store"))


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of chunks that anything reads from now on."""
    keys: list[str] = []
    for kind in (LocalStore, icechunk.IcechunkStore):
        original = kind.get

        async def get(self: Any, key: str, *given: Any, _original: Any = original, **named: Any) -> Any:
            keys.extend([key] if "/c/" in key else [])
            return await _original(self, key, *given, **named)

        monkeypatch.setattr(kind, "get", get)
    return keys
