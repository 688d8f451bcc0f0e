"""Running one part of a study into a session of its store: what a process does by itself, or a worker for another."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalunet.errors import CausalUNetWarning, PluginError
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.fill.open_store import versions
from causalunet.execute.fill.parts import Part
from causalunet.execute.fill.recorder import Recorder
from causalunet.execute.measure.audit import drift
from causalunet.execute.walk.batches import MicroBatch, micro_batch_size, places_asked
from causalunet.execute.walk.decoding import Decoding
from causalunet.execute.walk.lockstep import Block, check_fired, run_block
from causalunet.models.tf32 import exact_float32
from causalunet.plan import Plan
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.scored import KnownOutcome, known_outcome

__all__ = ["Done", "PartPlans", "PartRunner", "commit_parts", "known_outcomes"]


@dataclass(frozen=True, slots=True)
class Done:
    """A part that was run and is not committed yet.

    Parameters
    ----------
    part : Part
    unet_calls : int
        Over all its samples.
    seconds : float
    failed : tuple of (int, int)
        Run and position in the store of the sample of what failed.
    failed_cells : int
    """

    part: Part
    unet_calls: int
    seconds: float
    failed: tuple[tuple[int, int], ...]
    failed_cells: int


class PartPlans:
    """Plans of the parts of a store, each laid out once.

    Parameters
    ----------
    layout : Layout
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def of(self, part: Part) -> Plan:
        """The plan of a part: its runs, from where they start."""
        replayed = part.forked and bool(part.baseline_recordings or part.recordings)
        key = (part.runs, replayed)
        if key not in self._plans:
            replay = self._layout.recorded_steps if replayed else ()
            self._plans[key] = self._layout.plan.part(part.runs, forked=part.forked, replay=replay)
        return self._plans[key]

    def unet_calls(self, part: Part) -> int:
        """U-Net calls that a part takes, over its samples."""
        return self.of(part).calls_per_sample * (part.samples.stop - part.samples.start)


class PartRunner:
    """Runs parts of a study on a model, one after the other.

    Parameters
    ----------
    layout : Layout
        Of the whole store, with a plan that has the model.
    outcomes : sequence of KnownOutcome
        Of the store's own.
    memory : int
        Budget in bytes, from `budget_of`.

    Attributes
    ----------
    plans : PartPlans
    outcomes : sequence of KnownOutcome
    """

    def __init__(self, layout: Layout, outcomes: Sequence[KnownOutcome], memory: int) -> None:
        plan = layout.plan
        self._layout = layout
        rows, places = plan.spec.sampler.rows_per_sample, places_asked(plan)
        self._micro_batch = MicroBatch(micro_batch_size(plan.anatomy, memory, rows, places))
        self._unet = TracedUNet(plan.bound.model.unet, plan.anatomy)
        self._decode = Decoding(plan.bound.model, memory)
        self.outcomes = outcomes
        self.plans = PartPlans(layout)

    @property
    def unet(self) -> TracedUNet:
        """What is called."""
        return self._unet

    def run(self, writer: StudyWriter, part: Part, advance: Callable[[int], None] | None = None) -> Done:
        """Run a part and hand its results to a writer, which is not told to commit them.

        Parameters
        ----------
        writer : StudyWriter
        part : Part
        advance : callable, optional
            Told the number of samples after every U-Net call.

        Raises
        ------
        StorageError, FiringError, MemoryExhaustedError, ModelError
            As for `StoreFiller.fill`.
        """
        started, plan = time.perf_counter(), self.plans.of(part)
        samples = self._layout.grid.samples[part.samples]
        block = Block(part.samples.start, tuple(s.prompt for s in samples), tuple(s.start for s in samples))
        recorder = Recorder(plan, self._layout, writer, part, block, self._decode, self.outcomes)
        with exact_float32():
            fired = run_block(
                self._unet,
                plan,
                block,
                micro_batch=self._micro_batch,
                observer=recorder,
                states=recorder.states(),
                advance=advance,
            )
        check_fired(plan, fired, len(samples))
        recorder.write()
        self._write_drift(writer, part, block, recorder)
        calls, seconds = self.plans.unet_calls(part), time.perf_counter() - started
        for name, added in (("unet_calls", plan.calls_per_sample), ("seconds", seconds / len(samples))):
            before = np.nan_to_num(writer.read(f"audit/{name}", (part.samples,)))
            writer.write(f"audit/{name}", (part.samples,), before + added)
        failed = tuple((run, part.samples.start + sample) for run, sample in recorder.failed)
        return Done(part, calls, seconds, failed, recorder.failed_cells)

    def _write_drift(self, writer: StudyWriter, part: Part, block: Block, recorder: Recorder) -> None:
        """One plain call per part, at its first sample and the first step."""
        plan = self._layout.plan
        x, eps = (recorder.baseline[name][:1, 0] for name in ("x_t", "eps"))
        found = drift(plan, block.prompts[:1], plan.schedule.steps, x, eps)
        index = (slice(part.samples.start, part.samples.start + 1),)
        # The largest of all parts. What is not finite here, where the trace gave numbers, is the worst of all.
        worst = np.where(np.isnan(found) & np.isfinite(eps).all(), np.inf, found)
        writer.write("audit/drift", index, np.fmax(writer.read("audit/drift", index), worst))


def commit_parts(writer: StudyWriter, done: Iterable[Done]) -> None:
    """Commit what was run, with a note of how much that is.

    Parameters
    ----------
    writer : StudyWriter
        That the parts were handed to.
    done : iterable of Done
    """
    parts = list(done)
    cells = sum(one.part.cells for one in parts)
    samples = {sample for one in parts for sample in range(one.part.samples.start, one.part.samples.stop)}
    whole = [one.part.samples for one in parts if not one.part.forked]
    writer.commit(
        f"{cells} cells of {len(samples)} samples",
        {
            "cells": cells,
            "baselines": sum(part.stop - part.start for part in whole),
            "failed": sum(one.failed_cells for one in parts),
            "unet_calls": sum(one.unet_calls for one in parts),
            "seconds": round(sum(one.seconds for one in parts), 3),
            "versions": versions(),
        },
    )


def known_outcomes(writer: StudyWriter) -> tuple[KnownOutcome, ...]:
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
