"""Filling a study's store: blocks of samples claimed in turn, parts of them run and committed, nothing run twice."""

from __future__ import annotations

import itertools
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import CausalUNetWarning, PluginError, StoreError, WriteConflictError
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.fill.open_store import block_name, open_writer, record_rounding, record_source, versions
from causalunet.execute.fill.pace import Pace, portions
from causalunet.execute.fill.parts import Part, Progress, lacks
from causalunet.execute.fill.recorder import Recorder
from causalunet.execute.measure.audit import drift
from causalunet.execute.measure.rounding import rounding_of, rounding_of_runs
from causalunet.execute.walk.batches import MicroBatch, micro_batch_size, places_asked
from causalunet.execute.walk.decoding import Decoding
from causalunet.execute.walk.lockstep import Block, check_fired, run_block
from causalunet.execute.walk.memory import budget_of
from causalunet.models.tf32 import exact_float32
from causalunet.plan import Plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.noise_floor import NULL_DIFFERENCE, Bounds, beyond_rounding, first_distance
from causalunet.results.meaning.schema import FAILED, MISSING
from causalunet.results.meaning.scored import KnownOutcome, known_outcome

__all__ = ["StoreFiller"]

_TRIES = 5
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class _Done:
    """A part that was run and is not committed yet."""

    part: Part
    unet_calls: int
    seconds: float
    failed: tuple[tuple[int, int], ...]
    failed_cells: int


class StoreFiller:
    """A study's store, filled by what is asked for.

    Several processes may fill one store: on local disks each block of samples is claimed by one of them, in object
    stores whoever commits second drops its own values.

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

    Attributes
    ----------
    writer : StudyWriter
    layout : Layout
    memory : int
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
    ) -> None:
        budget = budget_of(memory, plan.bound.model)
        micro_batch = micro_batch_size(plan.anatomy, budget, plan.spec.sampler.rows_per_sample, places_asked(plan))
        self.writer, self.layout = open_writer(
            plan, path, micro_batch=micro_batch, memory=budget, overwrite=overwrite, source=source
        )
        self.advance, self.say = advance, say
        self.memory, self._plan, self._retry, self._source = budget, self.layout.plan, retry_failed, source
        self._micro_batch = MicroBatch(micro_batch)
        self._unet = TracedUNet(plan.bound.model.unet, plan.anatomy)
        self._decode = Decoding(plan.bound.model, budget)
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._pace = pace or Pace(cells=self._plan.part_cells)
        self._done: list[_Done] = []
        self._layout_id = self.writer.known.layout_id
        self._outcomes = _known_outcomes(self.writer)
        self.unet_calls_run = self._conflicts = 0
        grid = self.layout.grid
        self._tried = np.zeros((len(grid.interventions) + 1, len(grid.samples)), bool)  # by run; the baseline is last

    def unet_calls_missing(self) -> int:
        """U-Net calls that completing the study takes, over all samples."""
        parts = self._progress().missing(slice(0, len(self.layout.grid.samples)))
        return sum(self._part_plan(part).calls_per_sample * (part.samples.stop - part.samples.start) for part in parts)

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
            progress = self._progress()
            waiting = [samples for samples in self._order(blocks) if progress.missing(samples, chosen)]
            if self._source and (waiting or self._source["text"] is not None):  # kept, where that is asked for, now too
                record_source(self.writer, self._source)
            if waiting:
                record_rounding(self.writer, rounding_of(self._plan))
            for wait in (False, True):
                if wait and waiting and self.say:
                    self.say(f"Waiting for another process that runs {len(waiting)} blocks of this study.")
                waiting = [samples for samples in waiting if not self._complete(samples, chosen, wait=wait)]
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
        if known and (image := rounding_of_runs(self._plan, self._unet, known)) is not None:
            record_rounding(self.writer, {**rounding_of(self._plan), "image": image})
        return Bounds.of(self.writer.known.rounding)

    def _first_distance(self) -> NDArray[np.float64]:
        """What the first calls of null runs differ by, (sample,)."""
        nulls = [run for run, item in enumerate(self.layout.grid.interventions) if item.kind == "null"]
        distances = [self.writer.read("trajectory/eps_distance", (run,)) for run in nulls]
        return first_distance(np.stack(distances)) if nulls else np.full(len(self.layout.grid.samples), np.nan)

    def _progress(self, samples: slice | None = None) -> Progress:
        return Progress(self.writer, self.layout, retry_failed=self._retry, tried=self._tried, samples=samples)

    def _order(self, blocks: int) -> Iterator[slice]:
        size, samples = self.layout.block * blocks, len(self.layout.grid.samples)
        stretches = [slice(start, min(start + size, samples)) for start in range(0, samples, size)]
        if self.writer.repository.location.folder is None:
            # Without claims, processes had better begin at different places.
            first = random.SystemRandom().randrange(len(stretches))
            stretches = [*stretches[first:], *stretches[:first]]
        yield from stretches

    def _complete(self, samples: slice, runs: tuple[int, ...] | None, *, wait: bool) -> bool:
        """Run what some blocks lack; False if another process has claimed one of them."""
        with ExitStack() as claims:
            for start in range(samples.start, samples.stop, self.layout.block):
                if not claims.enter_context(self.writer.claim(block_name(start, self.layout.block), wait=wait)):
                    return False
            conflicts = 0
            while True:
                self._forget()
                self.writer.refresh()
                self._check_layout()
                try:
                    if self._run_all(self._progress(samples).missing(samples, runs)):
                        return True
                except WriteConflictError:
                    self._conflicts, conflicts = self._conflicts + 1, conflicts + 1
                    if conflicts == _TRIES:
                        raise

    def _run_all(self, parts: Iterable[Part]) -> bool:
        """Run parts, unless what was committed meanwhile changes them; False if it did."""
        whole = True
        for part in itertools.chain.from_iterable(portions(part, self._part_plan(part)) for part in parts):
            if self._pace.due(part.cells):
                self._commit()
            self._check_layout()
            if lacks(self.writer, part):
                self._run(part)
            else:
                whole = False
        self._commit()
        return whole

    def _check_layout(self) -> None:
        """Refuse to go on where another process has changed what stands where."""
        if self.writer.known.layout_id != self._layout_id:
            raise StoreError(
                f"Another process has extended or replaced the study in {self.writer.repository.location} meanwhile. "
                "Nothing committed is lost; run the same command again to go on with what is there now."
            )

    def _part_plan(self, part: Part) -> Plan:
        replayed = part.forked and bool(part.baseline_recordings or part.recordings)
        key = (part.runs, replayed)
        if key not in self._plans:
            replay = self.layout.recorded_steps if replayed else ()
            self._plans[key] = self._plan.part(part.runs, forked=part.forked, replay=replay)
        return self._plans[key]

    def _run(self, part: Part) -> None:
        self._pace.begin()
        started, plan = time.perf_counter(), self._part_plan(part)
        samples = self.layout.grid.samples[part.samples]
        block = Block(part.samples.start, tuple(s.prompt for s in samples), tuple(s.start for s in samples))
        recorder = Recorder(plan, self.layout, self.writer, part, block, self._decode, self._outcomes)
        with exact_float32():
            fired = run_block(
                self._unet,
                plan,
                block,
                micro_batch=self._micro_batch,
                observer=recorder,
                states=recorder.states(),
                advance=self.advance,
            )
        check_fired(plan, fired, len(samples))
        recorder.write()
        self._write_drift(part, block, recorder)
        calls, seconds = plan.calls_per_sample * len(samples), time.perf_counter() - started
        for name, added in (("unet_calls", plan.calls_per_sample), ("seconds", seconds / len(samples))):
            before = np.nan_to_num(self.writer.read(f"audit/{name}", (part.samples,)))
            self.writer.write(f"audit/{name}", (part.samples,), before + added)
        failed = tuple((run, part.samples.start + sample) for run, sample in recorder.failed)
        self._done.append(_Done(part, calls, seconds, failed, recorder.failed_cells))
        self._pace.end(part.cells)

    def _commit(self) -> None:
        """Commit what was run since the last commit."""
        if not self._done:
            return
        cells = sum(done.part.cells for done in self._done)
        samples = {sample for done in self._done for sample in range(done.part.samples.start, done.part.samples.stop)}
        calls = sum(done.unet_calls for done in self._done)
        whole = [done.part.samples for done in self._done if not done.part.forked]
        self.writer.commit(
            f"{cells} cells of {len(samples)} samples",
            {
                "cells": cells,
                "baselines": sum(part.stop - part.start for part in whole),
                "failed": sum(done.failed_cells for done in self._done),
                "unet_calls": calls,
                "seconds": round(sum(done.seconds for done in self._done), 3),
                "versions": versions(),
            },
        )
        self.unet_calls_run += calls
        for cell in (cell for done in self._done for cell in done.failed):
            self._tried[cell] = True
        self._forget()

    def _forget(self) -> None:
        """Begin anew after a commit, or after what was run is lost."""
        self._done.clear()
        self._pace.committed()

    def _write_drift(self, part: Part, block: Block, recorder: Recorder) -> None:
        """One plain call per part, at its first sample and the first step."""
        x, eps = (recorder.baseline[name][:1, 0] for name in ("x_t", "eps"))
        found = drift(self._plan, block.prompts[:1], self._plan.schedule.steps, x, eps)
        index = (slice(part.samples.start, part.samples.start + 1),)
        # The largest of all parts. What is not finite here, where the trace gave numbers, is the worst of all.
        worst = np.where(np.isnan(found) & np.isfinite(eps).all(), np.inf, found)
        self.writer.write("audit/drift", index, np.fmax(self.writer.read("audit/drift", index), worst))


def _known_outcomes(writer: StudyWriter) -> tuple[KnownOutcome, ...]:
    """Outcomes of the store's own that can be measured here; the others' cells stay unmeasured, and are told."""
    found, unknown = [], []
    for declared in writer.known.declaration.outcomes:
        try:
            found.append(KnownOutcome(known_outcome(declared), declared))
        except PluginError as error:
            unknown.append(str(error))
    if unknown:
        warnings.warn(
            f"{writer.repository.location} has {', '.join(unknown)}: it is not measured of what is run now. "
            "results.add_outcome(...) measures it later, where it is known.",
            CausalUNetWarning,
            stacklevel=2,
        )
    return tuple(found)
