"""Processes that die at random moments: nothing is torn, nothing acknowledged is lost, nothing is run twice."""

from __future__ import annotations

from pathlib import Path

import pytest

import causalunet as cu
from tests.trust.children import Child, read_log
from tests.trust.kills import Figures, KillLoop
from tests.trust.truth import Truth


def check(figures: Figures, kills: int) -> None:
    print(f"\n{figures}")
    assert figures.kills >= kills
    assert figures.cells > 0
    assert figures.stores > 0
    assert figures.torn == []
    assert figures.lost == set()
    assert figures.recomputed == set()
    assert figures.by_two == set()


def test_a_killed_run_goes_on_as_if_nothing_had_happened(truth: Truth, tmp_path: Path) -> None:
    check(KillLoop(truth, tmp_path).run(3), 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("writers", [1, 2])
def test_many_kills(truth: Truth, tmp_path: Path, writers: int) -> None:
    check(KillLoop(truth, tmp_path, writers=writers, seed=writers).run(200), 200)


@pytest.mark.thorough
def test_two_processes_share_a_study(truth: Truth, tmp_path: Path) -> None:
    store, log = tmp_path / "results.zarr", tmp_path / "log"
    children = [Child.start(store, log, together=2) for _ in range(2)]
    assert [child.ended() for child in children] == [0, 0]
    seen = truth.compare(cu.open_results(store))
    assert (seen.wrong, seen.whole) == ([], True)
    said = read_log(log)
    assert {line["pid"] for line in said if line["event"] == "committed" and line["cells"]} == {
        child.process.pid for child in children
    }, "both took part"
    begun = [cell for line in said if line["event"] == "begin" for cell in line["cells"]]
    assert len(begun) == len(set(begun)), "no cell was run by both"
