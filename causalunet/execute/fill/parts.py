"""What a store still lacks, cut into parts that are run and committed one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalunet.plan import BASELINE
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.layout import Layout, Recording
from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING

__all__ = ["Part", "Progress", "lacks"]


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of cells that is run and committed together.

    Parameters
    ----------
    samples : slice
        Positions in the store.
    runs : tuple of int
        What is run, ascending; without `BASELINE` from stored baseline states.
    outcomes : bool
        Whether outcomes are stored; otherwise the runs are made again for their activations only.
    baseline_recordings : tuple of Recording
        What is recorded of the baseline.
    recordings : tuple of Recording
        What is recorded of the other runs.
    """

    samples: slice
    runs: tuple[int, ...]
    outcomes: bool = True
    baseline_recordings: tuple[Recording, ...] = ()
    recordings: tuple[Recording, ...] = ()

    @property
    def forked(self) -> bool:
        """Whether runs start from stored baseline states."""
        return BASELINE not in self.runs

    @property
    def interventions(self) -> tuple[int, ...]:
        """The runs other than the baseline."""
        return tuple(run for run in self.runs if run != BASELINE)

    @property
    def cells(self) -> int:
        """Number of cells whose outcomes are stored."""
        return len(self.interventions) * (self.samples.stop - self.samples.start) if self.outcomes else 0


def lacks(writer: StudyWriter, part: Part) -> bool:
    """Whether a part can be run and would not run again what is complete, as of a writer's session.

    Only the statuses of its own cells are read: a study has many parts, and this is asked of each.
    """
    baseline = writer.read("baseline/status", (part.samples,))
    if part.forked and (baseline != COMPLETE).any():
        return False
    if not part.forked and (baseline == COMPLETE).any():
        return False
    if not part.outcomes or not part.interventions:
        return True
    rows = slice(min(part.interventions), max(part.interventions) + 1)
    cells = writer.read("outcomes/status", (rows, part.samples))[np.subtract(part.interventions, rows.start)]
    return bool((cells != COMPLETE).all())


class Progress:
    """What of a study is stored, as of a writer's session.

    Parameters
    ----------
    writer : StudyWriter
    layout : Layout
    retry_failed : bool
        Count what failed as missing.
    tried : ndarray of bool, (run, sample), optional
        What failed in vain already and does not count as missing; the last row is the baseline's.
    samples : slice, optional
        Positions that are asked about; nothing is read of others. By default all.
    """

    def __init__(
        self,
        writer: StudyWriter,
        layout: Layout,
        *,
        retry_failed: bool = False,
        tried: NDArray[np.bool_] | None = None,
        samples: slice | None = None,
    ) -> None:
        self._at = samples or slice(0, len(layout.grid.samples))
        self._layout, self._group = layout, layout.plan.group
        self._all_runs = layout.plan.spec.record.of == "all"
        self.baseline = writer.read("baseline/status", (self._at,))
        self.cells = writer.read("outcomes/status", (slice(None), self._at))
        status = np.concatenate([self.cells, self.baseline[None]])
        again = (status == FAILED) & retry_failed & (True if tried is None else ~tried[:, self._at])
        self._open = (status == MISSING) | again
        self._recordings = layout.recordings
        self._baseline_recorded = self._recorded(writer, "baseline_status", (self._at,), self.baseline.shape)
        self._recorded_cells = self._recorded(writer, "status", (slice(None), self._at), self.cells.shape)

    def missing(self, samples: slice, runs: Iterable[int] | None = None) -> list[Part]:
        """Parts that complete some samples.

        Parameters
        ----------
        samples : slice
            Positions in the store, of those that were read.
        runs : iterable of int, optional
            Interventions that are wanted, beside the baseline; by default all, with everything that is recorded.
        """
        chosen = np.zeros(len(self.cells), bool)
        chosen[slice(None) if runs is None else list(runs)] = True
        baseline = self._open[BASELINE]
        possible = baseline | (self.baseline != FAILED)
        cells = self._open[:BASELINE] & possible & chosen[:, None]
        stored = self.baseline == COMPLETE
        recorded = ~self._baseline_recorded & stored
        of_runs = ~self._recorded_cells & stored & (self.cells == COMPLETE) & chosen[:, None] & self._all_runs
        columns = np.concatenate([baseline[None], cells, recorded, of_runs.reshape(-1, len(baseline))])
        parts: list[Part] = []
        first = self._at.start
        for stretch in _alike(columns[:, samples.start - first : samples.stop - first], samples.start):
            at = stretch.start - first
            parts += self._first_time(stretch, bool(baseline[at]), np.flatnonzero(cells[:, at]))
            if runs is None:
                parts += self._recorded_later(stretch, recorded[:, at], of_runs[:, :, at])
        return parts

    def _first_time(self, samples: slice, baseline: bool, pending: NDArray[np.intp]) -> Iterator[Part]:
        recordings = self._recordings if self._all_runs else ()
        groups: dict[int, list[int]] = {0: []} if baseline else {}
        for run in pending.tolist():
            groups.setdefault(run // self._group, []).append(run)
        for group, runs in groups.items():
            if baseline and group == 0:
                yield Part(samples, (BASELINE, *runs), True, self._recordings, recordings)
            else:
                yield Part(samples, tuple(runs), True, (), recordings)

    def _recorded_later(
        self, samples: slice, baseline: NDArray[np.bool_], of_runs: NDArray[np.bool_]
    ) -> Iterator[Part]:
        def lacking(missing: NDArray[np.bool_]) -> tuple[Recording, ...]:
            return tuple(itertools.compress(self._recordings, missing))

        # Runs that lack different things stay apart: what is stored is not recorded again from a replay.
        groups: dict[tuple[int, tuple[Recording, ...]], list[int]] = {}
        for run in np.flatnonzero(of_runs.any(axis=0)).tolist():
            groups.setdefault((run // self._group, lacking(of_runs[:, run])), []).append(run)
        of_baseline = lacking(baseline)
        if of_baseline and not groups:
            yield Part(samples, (), False, of_baseline)
        for (_, of_runs_of_group), runs in groups.items():
            yield Part(samples, tuple(runs), False, of_baseline, of_runs_of_group)
            of_baseline = ()

    def _recorded(
        self, writer: StudyWriter, name: str, index: tuple[slice, ...], shape: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Whether each recording is stored, (recording, ...); what the store has no place for counts as stored."""
        done = np.ones((len(self._recordings), *shape), bool)
        summary = f"activation_summary/{name}"
        has_summary = self._layout.grid.summary and writer.has(summary)
        summarised = writer.read(summary, index) == COMPLETE if has_summary else None
        for row, recording in enumerate(self._recordings):
            whole = f"activations/{recording.component}/{name}"
            if recording.whole and writer.has(whole):
                done[row] = writer.read(whole, index) == COMPLETE
            elif not recording.whole and summarised is not None:
                done[row] = summarised[..., self._layout.grid.summary.index(recording.component)]
        return done


def _alike(columns: NDArray[np.bool_], start: int) -> Iterator[slice]:
    """Stretches of neighbouring samples that lack the same; those that lack nothing are left out."""
    changes = np.flatnonzero((columns[:, 1:] != columns[:, :-1]).any(axis=0)) + 1
    bounds = [0, *changes.tolist(), columns.shape[1]]
    for first, last in itertools.pairwise(bounds):
        if first < last and columns[:, first].any():
            yield slice(start + first, start + last)
