from __future__ import annotations

from pathlib import Path

import pytest

from causalunet.explore.stored import Stored
from tests.explore.stores import hostile_store, whole_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explore") / "whole.zarr"
    whole_store(path)
    return path


@pytest.fixture(scope="session")
def stored(store: Path) -> Stored:
    from causalunet.results import open_results

    return Stored(open_results(store))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explore") / "hostile.zarr"
    hostile_store(path)
    return path
