"""An uninterrupted run of the small study, which all others are compared with."""

from __future__ import annotations

import time

import pytest

from tests.trust import small
from tests.trust.children import Child, warm_up
from tests.trust.truth import Truth


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """What an uninterrupted run stores; its store is not to be changed."""
    folder = tmp_path_factory.mktemp("truth")
    warm_up()
    child = Child.start(folder / "results.zarr", folder / "log")
    child.ended()
    return Truth(folder / "results.zarr", time.monotonic() - child.started)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts to a block in this process too."""
    small.in_small_groups(monkeypatch.setattr)
