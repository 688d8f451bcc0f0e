"""Processes that are forked from one that has opened a store: an error that says what to do, never a wait for ever."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import causalunet as cu

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PROGRAM = """
import multiprocessing, os, sys
import causalunet as cu

path, when, what = sys.argv[1:]
results = cu.open_results(path) if when == "before" else None

def work(_):
    try:
        found = results if what == "read" else cu.open_results(path)
        return str(float(found.outcomes.ssim.mean()))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map_async(work, range(2)).get(timeout=60), sep="\\n", flush=True)
os._exit(0)  # the engine may abort while the interpreter is torn down
"""


def told(path: Path, when: str, what: str) -> list[str]:
    """What two forked workers say."""
    command = [sys.executable, "-c", PROGRAM, str(path), when, what]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("what", ["read", "open"])
def test_a_store_that_was_opened_before_the_fork_is_refused(store: Path, what: str) -> None:
    for line in told(store, "before", what):
        assert line.startswith("StorageError")
        assert str(store) in line
        assert "spawn" in line
        assert "damage" not in line


def test_a_store_is_opened_after_the_fork(store: Path) -> None:
    mean = float(cu.open_results(store).outcomes.ssim.mean())
    assert [float(line) for line in told(store, "after", "open")] == [mean] * 2


@pytest.mark.thorough
@pytest.mark.parametrize("what", ["read", "open"])
def test_exports_are_read_on_either_side(store: Path, tmp_path: Path, what: str) -> None:
    exported = cu.open_results(store).export(tmp_path / "exported.zarr")
    mean = float(cu.open_results(store).outcomes.ssim.mean())
    assert [float(line) for line in told(exported, "before", what)] == [mean] * 2


def mean_of(path: str) -> float:
    return float(cu.open_results(path).outcomes.ssim.mean())


@pytest.mark.thorough
def test_spawned_workers_open_stores_as_the_message_advises(store: Path) -> None:
    worker: Callable[[str], float] = mean_of
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(worker, [str(store)]) == [mean_of(str(store))]
