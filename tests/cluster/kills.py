"""Kill loops of a cluster: its processes die at random moments, and a reader looks at the store after each death.

python -m tests.cluster.kills worker 60      # or scheduler, coordinator
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import causalunet as cu
from causalunet.errors import ClusterError, StoreError
from tests.trust import small
from tests.trust.children import Cell
from tests.trust.truth import Truth

_CONTEXT = multiprocessing.get_context("spawn")
_GONE = 3
"""Exit status of a coordinator whose scheduler is gone."""
_WORKERS = 2
_ALONE = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--death-timeout", "10")
"""How a worker is started that nobody but this file looks after."""
_SECONDS = 6.0
"""Of a run, about: kills of workers come within them."""
_COMMITS = 8
"""Of a run: its layout, baselines and parts. Others are killed after some number of them."""
_MOMENT = 0.5
"""Seconds after a commit within which they are, about as long as a part takes."""


@dataclass
class Figures:
    """What a kill loop counts."""

    kills: int = 0
    stores: int = 0
    cells: int = 0
    torn: list[str] = field(default_factory=list)
    lost: set[Cell] = field(default_factory=set)
    again: int = 0
    """Cells that were committed more than once: commits say how many they have."""

    def __str__(self) -> str:
        """All figures in a line."""
        return (
            f"kills: {self.kills}; stores completed, equal bit for bit to one process: {self.stores}; complete cells "
            f"compared: {self.cells}; torn: {len(self.torn)}; lost: {len(self.lost)}; "
            f"run again: {self.again}"
        )


def fleet(address: Path) -> None:
    """Be a scheduler with two workers until killed.

    A worker that was killed is started again here: dask's nanny gives one up that dies while it is being started again.
    """
    import dask
    from distributed import LocalCluster

    # Kills hit the same part again and again, which is not its fault.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1000}),
        LocalCluster(n_workers=0, dashboard_address=":0") as made,
    ):
        address.with_suffix(".new").write_text(made.scheduler_address)
        address.with_suffix(".new").rename(address)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", made.scheduler_address, *_ALONE]
        workers = [subprocess.Popen(command) for _ in range(_WORKERS)]
        while True:
            time.sleep(0.2)
            workers = [subprocess.Popen(command) if one.poll() is not None else one for one in workers]


def coordinator(store: Path, address: str) -> None:
    """Run the small study on the workers of a scheduler."""
    import torch
    from distributed import Client

    torch.set_num_threads(1)
    small.in_small_groups()
    try:
        with Client(address, timeout=10) as client:
            workers = cu.Workers(client=client, load=small.model)
            small.STUDY.run(store, model=small.model(), client=workers, memory=small.MEMORY, progress=False)
    except (ClusterError, OSError, TimeoutError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(_GONE)
    os._exit(0)


class KillLoop:
    """One store after the other, each run until it is complete.

    Parameters
    ----------
    truth : Truth
    folder : Path
    target : {"worker", "scheduler", "coordinator"}
    seed : int
    """

    def __init__(self, truth: Truth, folder: Path, target: str, seed: int = 0) -> None:
        self.truth, self.folder, self.target = truth, folder, target
        self.figures, self._random = Figures(), random.Random(seed)
        self._fleet: Any = None
        self._known: set[Cell] = set()

    def run(self, kills: int) -> Figures:
        """Kill that many times, then let the last store be completed."""
        try:
            while self.figures.kills < kills:
                self._round(killing=True)
            before = self.figures.stores
            while self.figures.stores == before:
                self._round(killing=False)
        finally:
            self._end_fleet()
        return self.figures

    @property
    def _store(self) -> Path:
        return self.folder / f"{self.figures.stores}.zarr"

    def _round(self, *, killing: bool) -> None:
        address = self._address()
        child = _CONTEXT.Process(target=coordinator, args=(self._store, address))
        child.start()
        # From its first sign of life on, since importing takes longer than the study.
        self._await(child, self._store.exists)
        while killing and child.is_alive():
            if self.target == "worker":
                child.join(self._random.uniform(0, _SECONDS))
            else:  # each ends the run, and would before anything is committed if it came at any time
                wanted = self._commits() + self._random.randrange(_COMMITS // 2)
                self._await(child, lambda wanted=wanted: self._commits() >= wanted)  # type: ignore[misc]
                child.join(self._random.uniform(0, _MOMENT))
            if not child.is_alive() or not self._kill(child, address):
                break
            self.figures.kills += 1
            if self.target != "worker":
                break
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL, _GONE), child.exitcode
        assert child.exitcode != _GONE or self.target == "scheduler"
        self._look()

    @staticmethod
    def _await(child: Any, event: Callable[[], bool]) -> None:
        while child.is_alive() and not event():
            time.sleep(0.02)

    def _commits(self) -> int:
        return len(list((self._store / "snapshots").glob("*")))

    def _kill(self, child: Any, address: str) -> bool:
        if self.target == "coordinator":
            child.kill()
        elif self.target == "scheduler":
            self._end_fleet()
        else:
            from distributed import Client

            with suppress(OSError, TimeoutError), Client(address, timeout=10, set_as_default=False) as client:
                pids = sorted(client.run(os.getpid, on_error="ignore").values())
                if not pids:
                    return True
                os.kill(self._random.choice(pids), signal.SIGKILL)
        return True

    def _look(self) -> None:
        try:
            results = cu.open_results(self._store)
        except StoreError:
            return
        seen = self.truth.compare(results)
        self.figures.cells += len(seen.cells)
        self.figures.torn += seen.wrong
        self.figures.lost |= self._known - seen.cells
        self._known = seen.cells
        if seen.whole:
            assert results.verify(quiet=True)
            committed = sum(one.added.get("cells", 0) for one in results.history())
            self.figures.again += committed - results["outcomes"]["status"].size
            self.figures.stores += 1
            self._known = set()

    def _address(self) -> str:
        path = self.folder / "address"
        if self._fleet is None:
            path.unlink(missing_ok=True)
            self._fleet = _CONTEXT.Process(target=fleet, args=(path,))
            self._fleet.start()
            while not path.exists():
                time.sleep(0.05)
        return path.read_text()

    def _end_fleet(self) -> None:
        if self._fleet is not None:
            self._fleet.kill()
            self._fleet.join()
            self._fleet = None


def main() -> None:
    """Run a kill loop and print its figures."""
    target, kills = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.zarr"
        small.in_small_groups()
        small.run(whole)
        print(target, KillLoop(Truth(whole, 0.0), Path(folder), target).run(kills), flush=True)


if __name__ == "__main__":
    main()
