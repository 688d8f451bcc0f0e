"""Filling a study's store: blocks of samples claimed in turn, parts of them run and committed, nothing run twice."""

from __future__ import annotations

import itertools
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import CausalUNetWarning, StoreError, WriteConflictError
from causalunet.execute.fill.open_store import block_name, open_writer, record_rounding, record_source
from causalunet.execute.fill.pace import Pace, portions
from causalunet.execute.fill.part_runner import Done, PartRunner, commit_parts, known_outcomes
from causalunet.execute.fill.parts import Part, Progress, lacks
from causalunet.execute.measure.rounding import rounding_of, rounding_of_runs
from causalunet.execute.walk.batches import micro_batch_size, places_asked
from causalunet.execute.walk.memory import budget_of
from causalunet.plan import Plan
from causalunet.results.engine.leases import Wait
from causalunet.results.engine.location import Location
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.noise_floor import NULL_DIFFERENCE, Bounds, beyond_rounding, first_distance
from causalunet.results.meaning.schema import FAILED, MISSING

__all__ = ["StoreFiller"]

_TRIES = 5
_MOST_REASONS = 3


class StoreFiller:
    """A study's store, filled by what is asked for.

    Several processes may fill one store: each block of samples is claimed by one of them.

    Parameters
    ----------
    plan : Plan
        Of the whole study.
    path : path or str
        Folder or address of the store: made if absent, gone on with if it holds the same study or a part of it.
    memory : int, optional
        Budget in bytes for the activations of a call, and again for the states of a block of samples; by default half
        of what is free on the device, and on a CPU 1 GiB at the most.
    overwrite : bool
        Replace a store that holds another study.
    retry_failed : bool
        Run cells again that are marked as failed, each once.
    source : dict, optional
        The study's file, see `causalunet.provenance`.
    advance : callable, optional
        Told the number of samples after every U-Net call.
    say : callable, optional
        Told in words what the run waits for.
    pace : Pace, optional
        Decides when is committed.
    shares : int
        How many blocks of samples a store that is made now should at least have.
    shard : tuple of int, optional
        ``(k, n)``: fill the k-th of n shares of the blocks only, counting from 1, and leave the others.

    Attributes
    ----------
    writer : StudyWriter
    layout : Layout
    memory : int
    runner : PartRunner
    unet_calls_run : int
        U-Net calls that were run, over all samples.
    """

    def __init__(
        self,
        plan: Plan,
        path: str | Path | Location,
        *,
        memory: int | None = None,
        overwrite: bool = False,
        retry_failed: bool = False,
        source: dict[str, Any] | None = None,
        advance: Callable[[int], None] | None = None,
        say: Callable[[str], None] | None = None,
        pace: Pace | None = None,
        shares: int = 1,
        shard: tuple[int, int] | None = None,
    ) -> None:
        budget = budget_of(memory, plan.bound.model)
        micro_batch = micro_batch_size(plan.anatomy, budget, plan.spec.sampler.rows_per_sample, places_asked(plan))
        self.writer, self.layout = open_writer(
            plan,
            path,
            micro_batch=micro_batch,
            memory=budget,
            overwrite=overwrite,
            source=source,
            shares=shard[1] if shard else shares,
        )
        self.advance, self.say = advance, say
        self.memory, self._plan, self._retry, self._source = budget, self.layout.plan, retry_failed, source
        self.runner = PartRunner(self.layout, known_outcomes(self.writer), budget)
        self._pace = pace or Pace(cells=self._plan.part_cells)
        self._done: list[Done] = []
        self._shard = shard
        self._layout_id = self.writer.known.layout_id
        self.unet_calls_run = self._conflicts = 0
        grid = self.layout.grid
        self._tried = np.zeros((len(grid.interventions) + 1, len(grid.samples)), bool)  # by run; the baseline is last

    def unet_calls_missing(self) -> int:
        """U-Net calls that completing the study takes, over all samples."""
        progress = self._progress()
        parts = (part for samples in self.stretches() for part in progress.missing(samples))
        return sum(self.runner.plans.unet_calls(part) for part in parts)

    def fill(self, runs: Iterable[int] | None = None, *, blocks: int = 1) -> None:
        """See to it that the store holds everything, or the outcomes of some interventions.

        Parameters
        ----------
        runs : iterable of int, optional
            Positions of interventions in the store; none for the baseline alone.
        blocks : int
            Blocks of samples that go through the U-Net together.

        Raises
        ------
        StorageError, WriteConflictError, FiringError, MemoryExhaustedError
            What was committed stays.
        """
        chosen = None if runs is None else tuple(runs)
        try:
            waiting = self.begin(chosen, blocks=blocks)
            if waiting:
                record_rounding(self.writer, rounding_of(self._plan))
                with self.writer.repository.at_work():
                    self._complete_all(waiting, chosen)
        except BaseException:
            self.writer.abandon()
            self._forget()
            raise
        if self._conflicts:
            warnings.warn(
                f"{self._conflicts} parts were committed by another process first; its values stay, those of this one "
                "were dropped.",
                CausalUNetWarning,
                stacklevel=2,
            )

    def begin(self, runs: tuple[int, ...] | None = None, *, blocks: int = 1) -> list[slice]:
        """Stretches of samples that lack something, in the order to run them; the study's file is noted.

        Parameters
        ----------
        runs, blocks
            As for `fill`.
        """
        progress = self._progress()
        waiting = [samples for samples in self.stretches(blocks) if progress.missing(samples, runs)]
        if self._source and (waiting or self._source["text"] is not None):  # kept, where that is asked for, now too
            record_source(self.writer, self._source)
        return waiting

    def missing(self, samples: slice, writer: StudyWriter) -> list[Part]:
        """What some blocks lack as of the session of a writer, in parts as they are run.

        Parameters
        ----------
        samples : slice
        writer : StudyWriter
            Of the same store.

        Raises
        ------
        StoreError
            Another process has changed what stands where.
        """
        self.check_layout(writer)
        return list(self._portions(self._progress(samples, writer).missing(samples)))

    def safe(self) -> str:
        """Say how many cells are committed, and where."""
        self.writer.refresh()
        status = self.writer.read("outcomes/status")
        there = int((status != MISSING).sum())
        return f"{there:,} of {status.size:,} cells are safe in {self.writer.repository.location}"

    def warn_of_failures(self, runs: Iterable[int] | None = None, what: str = "cells", consequence: str = "") -> None:
        """Say how many cells of the study, or of some interventions, failed, and why.

        Parameters
        ----------
        runs : iterable of int, optional
            Positions of interventions in the store.
        what : str
            What to call their cells.
        consequence : str
            A sentence on what follows from it.
        """
        self.writer.refresh()
        chosen = slice(None) if runs is None else sorted(runs)
        failed = self.writer.read("outcomes/status")[chosen] == FAILED
        if not failed.any():
            return
        reasons = Counter(map(str, self.writer.read("outcomes/failure")[chosen][failed].tolist()))
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(_MOST_REASONS))
        warnings.warn(
            f"{int(failed.sum())} of {failed.size} {what} failed: {listed}. {consequence}They are marked in "
            "outcomes.status (2) with their reason in outcomes.failure; run with retry_failed=True to try them again.",
            CausalUNetWarning,
            stacklevel=2,
        )

    def warn_of_noise(self) -> None:
        """Say so where runs in which nothing is changed differ by more than rounding."""
        self.writer.refresh()
        null, drift = (np.nan_to_num(self.writer.read(f"audit/{name}")) for name in ("null_difference", "drift"))
        told, bounds = [], Bounds.of(self.writer.known.rounding)
        if null.max(initial=0.0) > NULL_DIFFERENCE:
            first = self._first_distance()
            if null.max() > bounds.image and (np.nan_to_num(first, nan=np.inf) <= bounds.call).any():
                bounds = self._measured_by_runs(null)
            if beyond_rounding(null, first, bounds).any():
                told.append(f"the null intervention changed an image by {null.max():.2g}")
        if drift.max(initial=0.0) > bounds.drift:
            told.append(f"a plain call of the U-Net gives another prediction than the traced (drift {drift.max():.2g})")
        if told:
            warnings.warn(
                f"By more than rounding, {' and '.join(told)}. Effects of that size are none, and verify will call the "
                "store not sound. Something in the U-Net is random, such as dropout, or remembers its last call.",
                CausalUNetWarning,
                stacklevel=2,
            )

    def _measured_by_runs(self, null: NDArray[Any]) -> Bounds:
        """Bounds with what runs make of rounding: of the samples whose null runs differ most, made in other batches."""
        worst = [int(sample) for sample in np.argsort(-null, kind="stable")]
        places = {sample: place for place, sample in enumerate(self._plan.spec.samples)}
        known = [places[one] for one in (self.layout.grid.samples[at] for at in worst) if one in places]
        if known and (image := rounding_of_runs(self._plan, self.runner.unet, known)) is not None:
            record_rounding(self.writer, {**rounding_of(self._plan), "image": image})
        return Bounds.of(self.writer.known.rounding)

    def _first_distance(self) -> NDArray[np.float64]:
        """What the first calls of null runs differ by, (sample,)."""
        nulls = [run for run, item in enumerate(self.layout.grid.interventions) if item.kind == "null"]
        distances = [self.writer.read("trajectory/eps_distance", (run,)) for run in nulls]
        return first_distance(np.stack(distances)) if nulls else np.full(len(self.layout.grid.samples), np.nan)

    def _progress(self, samples: slice | None = None, writer: StudyWriter | None = None) -> Progress:
        at = self.writer if writer is None else writer
        return Progress(at, self.layout, retry_failed=self._retry, tried=self._tried, samples=samples)

    def _portions(self, parts: Iterable[Part]) -> Iterator[Part]:
        return itertools.chain.from_iterable(portions(part, self.runner.plans.of(part)) for part in parts)

    def stretches(self, blocks: int = 1) -> Iterator[slice]:
        """Blocks of samples, or so many of them together, in the order to run them; of a shard its own."""
        size, samples = self.layout.block * blocks, len(self.layout.grid.samples)
        stretches = [slice(start, min(start + size, samples)) for start in range(0, samples, size)]
        if self._shard:
            yield from stretches[self._shard[0] - 1 :: self._shard[1]]
            return
        if self.writer.repository.location.folder is None:
            # Each look at a claim there is a request: processes that begin at different places seldom meet.
            first = random.SystemRandom().randrange(len(stretches))
            stretches = [*stretches[first:], *stretches[:first]]
        yield from stretches

    def _complete_all(self, waiting: list[slice], runs: tuple[int, ...] | None) -> None:
        """Run what blocks lack, those first that no other process has claimed."""
        wait: Wait = "no"
        while waiting:
            if wait == "free" and self.say:
                self.say(f"Waiting for another process that runs {len(waiting)} blocks of this study.")
            waiting = [samples for samples in waiting if not self._complete(samples, runs, wait=wait)]
            wait = "free"

    def _complete(self, samples: slice, runs: tuple[int, ...] | None, *, wait: Wait) -> bool:
        """Run what some blocks lack; False if another process has claimed one of them."""
        names = [
            block_name(start, self.layout.block) for start in range(samples.start, samples.stop, self.layout.block)
        ]
        with ExitStack() as claims:
            for name in names:
                if not claims.enter_context(self.writer.claim(name, wait=wait)):
                    return False
            conflicts = 0
            while self._holds(names):
                self._forget()
                self.writer.refresh()
                self.check_layout(self.writer)
                try:
                    if self._run_all(self._progress(samples).missing(samples, runs), names):
                        return True
                except WriteConflictError:
                    self._conflicts, conflicts = self._conflicts + 1, conflicts + 1
                    if conflicts == _TRIES:
                        raise
        return False

    def _holds(self, names: Iterable[str]) -> bool:
        return all(map(self.writer.repository.holds, names))

    def _run_all(self, parts: Iterable[Part], names: Iterable[str]) -> bool:
        """Run parts, unless what was committed meanwhile changes them, or a claim was lost; False if so."""
        whole = True
        for part in self._portions(parts):
            if self._pace.due(part.cells):
                self._commit()
            self.check_layout(self.writer)
            if not self._holds(names):
                whole = False
                break
            if lacks(self.writer, part):
                self._run(part)
            else:
                whole = False
        self._commit()
        return whole

    def check_layout(self, writer: StudyWriter) -> None:
        """Refuse to go on where another process has changed what stands where, as of the session of a writer."""
        if writer.known.layout_id != self._layout_id:
            raise StoreError(
                f"Another process has extended or replaced the study in {self.writer.repository.location} meanwhile. "
                "Nothing committed is lost; run the same command again to go on with what is there now."
            )

    def _run(self, part: Part) -> None:
        self._pace.begin()
        self._done.append(self.runner.run(self.writer, part, self.advance))
        self._pace.end(part.cells)

    def _commit(self) -> None:
        """Commit what was run since the last commit."""
        if not self._done:
            return
        commit_parts(self.writer, self._done)
        for done in self._done:
            self.count(done)
        self._forget()

    def count(self, done: Done) -> None:
        """Note what was committed: its calls, and what failed in vain."""
        self.unet_calls_run += done.unet_calls
        for cell in done.failed:
            self._tried[cell] = True

    def _forget(self) -> None:
        """Begin anew after a commit, or after what was run is lost."""
        self._done.clear()
        self._pace.committed()
