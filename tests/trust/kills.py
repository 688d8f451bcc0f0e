"""The kill loop: runs that are killed at random moments, and after every kill a reader that believes nothing."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import causalunet as cu
from causalunet.errors import DamageError, StorageError, StoreError
from tests.trust import small
from tests.trust.children import Cell, Child, read_log, stop
from tests.trust.truth import Seen, Truth

_AIMED = 0.5
"""Share of the kills that wait for a commit to begin."""
_COMMIT = 0.1
"""Seconds after that within which they come; a commit takes about half of it."""


@dataclass
class Figures:
    """What a kill loop counts."""

    kills: int = 0
    stores: int = 0
    readings: int = 0
    cells: int = 0
    torn: list[str] = field(default_factory=list)
    lost: set[Cell] = field(default_factory=set)
    recomputed: set[Cell] = field(default_factory=set)
    by_two: set[Cell] = field(default_factory=set)
    moments: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """All figures, on a line each."""
        moments = ", ".join(f"{count} {moment}" for moment, count in self.moments.most_common())
        return (
            f"kills: {self.kills} ({moments})\n"
            f"stores completed, equal bit for bit to an uninterrupted run: {self.stores}\n"
            f"readings after a kill: {self.readings}, of {self.cells} complete cells\ntorn: {len(self.torn)}\n"
            f"acknowledged and lost: {len(self.lost)}\ncommitted and run again: {len(self.recomputed)}\n"
            f"begun while another process that lived was at them: {len(self.by_two)}"
        )


class KillLoop:
    """One store after the other, each run until it is complete however often that takes.

    A cell whose process was killed before it was committed is run again, and counts nowhere.

    Parameters
    ----------
    truth : Truth
    folder : Path
        For logs, and for stores unless they have an address.
    address : str, optional
        Of an object store, under which stores are made.
    writers : int
        Processes that run the study at the same time.
    seed : int
    """

    def __init__(self, truth: Truth, folder: Path, *, address: str = "", writers: int = 1, seed: int = 0) -> None:
        self.truth, self.folder, self.writers, self.address = truth, folder, writers, address
        self.figures, self._random = Figures(), random.Random(seed)
        self._next()

    def run(self, kills: int) -> Figures:
        """Kill that many times, then let the last store be completed."""
        while self.figures.kills < kills:
            self._round(killing=True)
        before = self.figures.stores
        while self.figures.stores == before:
            self._round(killing=False)
        return self.figures

    def _next(self) -> None:
        name = f"{self.figures.stores}.zarr"
        self.store: str | Path = f"{self.address}/{name}" if self.address else self.folder / name
        self.log = self.folder / f"{self.figures.stores}.log"
        self._known: set[Cell] = set()
        self._at: dict[Cell, int] = {}
        self._killed: dict[int, float] = {}
        self._lines = 0

    def _round(self, *, killing: bool) -> None:
        children = [Child.start(self.store, self.log) for _ in range(self.writers)]
        try:
            # With several writers, one is often left alone after the other's death.
            longest = self.truth.seconds + (small.LEASE_SECONDS if self.address else 0)
            for seconds in sorted(self._random.uniform(0, longest) for _ in children):
                child = children.pop(self._random.randrange(len(children)))
                if killing and self._kill(child, seconds):
                    self._killed[child.number] = time.time()
                    self.figures.kills += 1
                    self.figures.moments[self._moment(child)] += 1
                child.ended()
                self._check()
        finally:
            stop(children)
        if self._whole:
            assert cu.open_results(self.store).verify(quiet=True)
            if isinstance(self.store, Path):
                shutil.rmtree(self.store)
            self.figures.stores += 1
            self._next()

    def _kill(self, child: Child, seconds: float) -> bool:
        """Kill at a random moment, or around a commit, which would seldom be hit; False if it ended by itself."""
        if self._random.random() < _AIMED:
            commits = self._commits() + self._random.randint(1, small.PARTS // 2)
            while child.process.is_alive() and self._commits() < commits:
                time.sleep(0.002)
            seconds = time.monotonic() - child.started + self._random.uniform(0, _COMMIT)
        return child.kill_after(seconds)

    def _commits(self) -> int:
        return self.log.read_bytes().count(b'"commit"') if self.log.exists() else 0

    def _moment(self, child: Child) -> str:
        """What the killed process was doing."""
        said = [line for line in read_log(self.log) if line["pid"] == child.process.pid]
        event, cells = (said[-1]["event"], said[-1]["cells"]) if said else ("", [])
        if event == "commit":
            return "in a commit" if cells else "in the commit of the layout"
        return {"begin": "in a part", "committed": "after a commit", "ready": "between parts"}.get(event, "in opening")

    def _check(self) -> None:
        """Look at the store as a reader, and at the log for what should not have been begun."""
        figures, said = self.figures, read_log(self.log)
        acknowledged = {cell for line in said if line["event"] == "committed" for cell in line["cells"]}
        seen, results = Seen(), self._open(any(line["event"] == "ready" for line in said))
        if results is not None:
            seen = self.truth.compare(results)
            figures.readings += 1
            figures.cells += len(seen.cells)
            figures.torn += seen.wrong
            figures.lost |= (acknowledged | self._known) - seen.cells
        self._whole = seen.whole
        said = read_log(self.log)
        for line in said[self._lines :]:  # in their order, as another process may go on meanwhile
            if line["event"] == "begin":
                figures.recomputed |= self._known & set(line["cells"])
                figures.by_two |= {cell for cell in line["cells"] if self._another_at(cell, line)}
                self._at.update(dict.fromkeys(line["cells"], line["pid"]))
            if line["event"] == "committed":
                self._known |= set(line["cells"])
                for cell in line["cells"]:
                    self._at.pop(cell, None)
        self._known |= seen.cells
        self._lines = len(said)

    def _another_at(self, cell: Cell, begun: dict[str, Any]) -> bool:
        """Whether another process was at a cell and lived as a process began it."""
        other = self._at.get(cell, begun["pid"])
        return other != begun["pid"] and begun["at"] < self._killed.get(other, math.inf)

    def _open(self, must: bool) -> cu.results.Results | None:
        """The store, or none if its creation was cut off before anybody was told that it is there."""
        try:
            return cu.open_results(self.store)
        except StoreError as error:
            if must or isinstance(error, DamageError | StorageError):
                raise
            return None
