"""Workers that are killed: nothing is torn or lost; a part that no worker survives is marked, the rest is run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

from causalunet.errors import CausalUNetWarning
from causalunet.results.meaning.schema import COMPLETE, FAILED
from tests.cluster.conftest import cluster, run
from tests.cluster.deadly import DEADLY, deadly_model
from tests.trust import small
from tests.trust.truth import Truth, read

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def crew() -> Iterator[Any]:
    """Two processes."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 2}), cluster(2) as client:
        yield client


def test_two_processes(whole: Truth, crew: Any, tmp_path: Path, small_groups: None) -> None:
    seen = whole.compare(run(tmp_path / "results.zarr", crew))
    assert (seen.wrong, seen.whole) == ([], True)


def test_a_worker_that_is_killed(
    whole: Truth, crew: Any, tmp_path: Path, small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from causalunet.cluster import coordinator

    real, killed = coordinator.commit_parts, []

    def kill_one(*given: Any) -> None:
        if not killed:  # another part is under way at the other worker
            killed.extend(crew.run(os.getpid).values())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        real(*given)

    monkeypatch.setattr(coordinator, "commit_parts", kill_one)
    seen = whole.compare(run(tmp_path / "results.zarr", crew))
    assert (len(killed), seen.wrong, seen.whole) == (2, [], True)


def test_a_part_that_no_worker_survives_is_marked(whole: Truth, crew: Any, tmp_path: Path, small_groups: None) -> None:
    with pytest.warns(CausalUNetWarning, match="8 of 24 cells failed: baseline: the worker died each of"):
        results = run(tmp_path / "results.zarr", crew, load=deadly_model)
    struck = [prompt == DEADLY for prompt in results.outcomes.prompt.values]
    assert sum(struck) == 2
    assert (results.outcomes.status.values[:, struck] == FAILED).all()
    assert (results.outcomes.status.values[:, [not one for one in struck]] == COMPLETE).all()
    assert (results.baseline.status.values[struck] == FAILED).all()
    assert results.verify(quiet=True).exit_code == 3, "sound, not complete"
    again = small.STUDY.run(
        tmp_path / "results.zarr", model=small.model(), memory=small.MEMORY, progress=False, retry_failed=True
    )
    seen = whole.compare_values(read(again))
    assert (seen.wrong, seen.whole) == ([], True)


def test_workers_that_come_and_go(whole: Truth, tmp_path: Path, small_groups: None) -> None:
    """The run begins without any worker; one comes, another takes its place."""
    with cluster(0) as client:

        def come_and_go() -> None:
            client.cluster.scale(1)
            client.wait_for_workers(1)
            time.sleep(1)
            client.cluster.scale(2)

        thread = threading.Thread(target=come_and_go)
        thread.start()
        seen = whole.compare(run(tmp_path / "results.zarr", client))
        thread.join()
    assert (seen.wrong, seen.whole) == ([], True)
