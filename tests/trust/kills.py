"""The kill loop: runs that are killed at random moments, and after every kill a reader that believes nothing."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import causalunet as cu
from tests.trust.children import Cell, Child, read_log, stop
from tests.trust.truth import Seen, Truth

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
    moments: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """All figures, on a line each."""
        moments = ", ".join(f"{count} {moment}" for moment, count in self.moments.most_common())
        return (
            f"kills: {self.kills} ({moments})\nstores completed, equal bit for bit to an uninterrupted run: {self.stores}\n"
            f"readings after a kill: {self.readings}, of {self.cells} complete cells\ntorn: {len(self.torn)}\n"
            f"acknowledged and lost: {len(self.lost)}\ncommitted and run again: {len(self.recomputed)}"
        )


class KillLoop:
    """One store after the other, each run until it is complete however often that takes.

    Parameters
    ----------
    truth : Truth
    folder : Path
        For stores and logs.
    writers : int
        Processes that run the study at the same time.
    seed : int
    """

    def __init__(self, truth: Truth, folder: Path, *, writers: int = 1, seed: int = 0) -> None:
        self.truth, self.folder, self.writers = truth, folder, writers
        self.figures, self._random = Figures(), random.Random(seed)
        self._next()

    def run(self, kills: int) -> Figures:
        """Kill that many times, then let the last store be completed."""
        while self.figures.kills < kills:
            self._round(killing=True)
        while self.figures.readings and self._known:
            self._round(killing=False)
        return self.figures

    def _next(self) -> None:
        self.store = self.folder / f"{self.figures.stores}.zarr"
        self.log = self.folder / f"{self.figures.stores}.log"
        self._known: set[Cell] = set()
        self._lines = 0

    def _round(self, *, killing: bool) -> None:
        children = [Child.start(self.store, self.log) for _ in range(self.writers)]
        try:
            # With several writers, one is often left alone after the other's death.
            for seconds in sorted(self._random.uniform(0, self.truth.seconds * self.writers) for _ in children):
                child = children.pop(self._random.randrange(len(children)))
                if killing and child.kill_after(seconds):
                    self.figures.kills += 1
                    self.figures.moments[self._moment(child)] += 1
                child.ended()
                self._check()
        finally:
            stop(children)
        if self._whole:
            assert cu.open_results(self.store).verify(quiet=True)
            shutil.rmtree(self.store)
            self.figures.stores += 1
            self._next()

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
        seen = Seen()
        if self.store.exists() or any(line["event"] == "ready" for line in said):
            seen = self.truth.compare(cu.open_results(self.store))
            figures.readings += 1
            figures.cells += len(seen.cells)
            figures.torn += seen.wrong
            figures.lost |= (acknowledged | self._known) - seen.cells
        self._whole = seen.whole
        said = read_log(self.log)
        for line in said[self._lines :]:  # in their order, as another process may go on meanwhile
            if line["event"] == "begin":
                figures.recomputed |= self._known & set(line["cells"])
            if line["event"] == "committed":
                self._known |= set(line["cells"])
        self._known |= seen.cells
        self._lines = len(said)
