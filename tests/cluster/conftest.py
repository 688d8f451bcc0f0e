"""Clusters of dask: in this process, which takes no time to start, and of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import causalunet as cu
from tests.trust import small
from tests.trust.truth import Truth

distributed = pytest.importorskip("distributed")


@contextmanager
def cluster(workers: int, **options: Any) -> Iterator[Any]:
    """A client of some workers."""
    threads = options.pop("threads_per_worker", 1)
    with (
        mock.patch.dict(os.environ),  # a nanny sets variables in its own process as well
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=threads, dashboard_address=":0", **options
        ) as made,
        distributed.Client(made) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """What one process stores, a group of two interventions of two samples at a time; not to be changed."""
    path = tmp_path_factory.mktemp("whole") / "results.zarr"
    with pytest.MonkeyPatch.context() as patch:
        small.in_small_groups(patch.setattr)
        small.run(path)
    return Truth(path, 0.0)


@pytest.fixture(scope="session")
def _at_hand() -> Iterator[Any]:
    with cluster(2, processes=False, threads_per_worker=2) as client:
        yield client


@pytest.fixture
def at_hand(small_groups: None, _at_hand: Any) -> Any:
    """Two workers of this process, of two threads each."""
    return _at_hand


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts to a block."""
    small.in_small_groups(monkeypatch.setattr)


def run(path: Path | str, client: Any, **options: Any) -> cu.results.Results:
    """Run the small study on workers."""
    workers = cu.Workers(client=client, **{"load": small.model, **options})
    return small.STUDY.run(path, model=small.model(), client=workers, memory=small.MEMORY, progress=False)
