"""Statistics of activations, and of parts of them, collected over one part of a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.site import Site
from causalunet.design.views import Axes
from causalunet.design.words import with_numbers, words_of
from causalunet.dims import ROW
from causalunet.execute.fill.parts import Part
from causalunet.plan import BASELINE
from causalunet.results.engine.writer import consecutive
from causalunet.results.meaning.layout import Layout, Recording
from causalunet.results.meaning.schema import COMPLETE

__all__ = ["Summaries"]

_GROUP = "activation_summary/"
_BASELINE = "baseline_"
_NAMES = ("mean", "sd", "norm", "min", "max", "cosine")
_HISTOGRAM = "histogram"
_AT_ONCE = 1 << 20
"""Values that are counted at once: they are compared with the edges in double precision."""


class Summaries:
    """Numbers per (run, sample, step, component), and how many values lie in each bin.

    Parameters
    ----------
    layout : Layout
    part : Part
    prompts : sequence of str
        Of the part's samples.
    """

    def __init__(self, layout: Layout, part: Part, prompts: Sequence[str]) -> None:
        self._part, self._layout, self._prompts = part, layout, prompts
        recorded = {*part.baseline_recordings, *part.recordings}
        columns = [
            column for column, name in enumerate(layout.grid.summary) if Recording(name, whole=False) in recorded
        ]
        self._column = {layout.grid.summary[column]: place for place, column in enumerate(columns)}
        self._columns = columns
        self._sites: dict[str, dict[str, Site]] = {}
        for name in self._column:
            site = layout.summarised[name]
            self._sites.setdefault(site.component, {})[name] = site
        # The baseline comes last.
        self._row = {**{run: row for row, run in enumerate(part.interventions)}, BASELINE: len(part.interventions)}
        sizes = (len(self._row), len(prompts), len(layout.recorded_steps), len(columns))
        stored = {one.path for one in layout.arrays}
        self._of_baseline = [name for name in (*_NAMES, _HISTOGRAM) if f"{_GROUP}{_BASELINE}{name}" in stored]
        self._of_runs = [name for name in (*_NAMES, _HISTOGRAM) if f"{_GROUP}{name}" in stored]
        kept = dict.fromkeys((*self._of_baseline, *self._of_runs)) if columns else {}
        self._values = {name: np.full(sizes, np.nan, np.float32) for name in kept if name != _HISTOGRAM}
        self._edges = torch.tensor(layout.plan.spec.record.bins or (), dtype=torch.float64)
        if _HISTOGRAM in kept:
            self._values[_HISTOGRAM] = np.full((*sizes, len(self._edges) - 1), np.nan)

    def add(self, place: str, runs: tuple[int, ...], rows: slice, position: int, value: Tensor, like: Tensor) -> None:
        """Summarise a place's value for every run that shares the call.

        Parameters
        ----------
        place : str
        runs : tuple of int
        rows : slice
            Which of the part's samples.
        position : int
            Of the step, among those that are recorded.
        value, like : Tensor, (sample, ...)
            Of these samples, and of the baseline.
        """
        chosen = [self._row[run] for run in runs]
        for name, site in self._sites.get(place, {}).items():
            at = np.ix_(chosen, range(rows.start, rows.stop))
            for key, numbers in self._summary(site, rows, value, like).items():
                self._values[key][:, :, position, self._column[name]][at] = numbers

    def _summary(self, site: Site, rows: slice, value: Tensor, like: Tensor) -> dict[str, NDArray[Any]]:
        axes = Axes((ROW, *self._layout.plan.anatomy.axes(site.component).dims[1:]), tuple(value.shape), len(value))
        words = words_of(site.view)
        if not words:
            return self._numbers(site.view.get(value, axes).flatten(1), site.view.get(like, axes).flatten(1))
        tokens, one = self._layout.plan.bound.tokens, axes._replace(shape=(1, *axes.shape[1:]), cond_rows=1)
        found = []
        for row, prompt in enumerate(self._prompts[rows]):  # each has its own number of tokens
            view = with_numbers(site.view, tokens[prompt, words])
            parts = (view.get(whole[row : row + 1], one).flatten(1) for whole in (value, like))
            found.append(self._numbers(*parts))
        return {key: np.concatenate([numbers[key] for numbers in found]) for key in found[0]}

    def _numbers(self, flat: Tensor, like: Tensor) -> dict[str, NDArray[Any]]:
        """Of every sample, (sample, value)."""
        numbers = {
            "mean": flat.mean(dim=1),
            "sd": flat.std(dim=1, correction=0),
            "norm": flat.norm(dim=1),
            "min": flat.amin(dim=1),
            "max": flat.amax(dim=1),
            "cosine": torch.cosine_similarity(flat, like, dim=1),
        }
        if _HISTOGRAM in self._values:
            numbers[_HISTOGRAM] = torch.stack([self._counted(row) for row in flat])
        return {key: number.cpu().numpy() for key, number in numbers.items() if key in self._values}

    def _counted(self, values: Tensor) -> Tensor:
        """How many values lie in each bin, which is half-open but for the last."""
        edges = self._edges.to(values.device)
        counts = edges.new_zeros(len(edges) + 2, dtype=torch.int64)
        for some in values.split(_AT_ONCE):
            of_these = torch.bucketize(some.double(), edges, right=True)
            of_these[some.double() == edges[-1]] = len(edges) - 1
            of_these[some.isnan()] = len(edges) + 1
            counts += of_these.bincount(minlength=len(counts))
        return counts[1 : len(edges)].double()

    def finished(self) -> Iterator[tuple[str, tuple[Any, ...], NDArray[Any]]]:
        """What is to be written: path, index and values; also which activations are now stored."""
        part, samples, n = self._part, self._part.samples, len(self._prompts)
        for here, columns in self._stretches(part.baseline_recordings):
            for key in self._of_baseline:
                values = self._values[key][self._row[BASELINE]][:, :, here]
                yield f"{_GROUP}{_BASELINE}{key}", (samples, slice(None), columns), values
            done = np.full((n, columns.stop - columns.start), COMPLETE)
            yield f"{_GROUP}baseline_status", (samples, columns), done
        for here, columns in self._stretches(part.recordings):
            for rows, runs in consecutive(part.interventions):
                for key in self._of_runs:
                    yield (
                        f"{_GROUP}{key}",
                        (runs, samples, slice(None), columns),
                        self._values[key][rows][:, :, :, here],
                    )
                done = np.full((runs.stop - runs.start, n, columns.stop - columns.start), COMPLETE)
                yield f"{_GROUP}status", (runs, samples, columns), done
        yield from self._stored_activations()

    def _stretches(self, recordings: tuple[Recording, ...]) -> Iterator[tuple[slice, slice]]:
        """Where neighbouring summarised components stand: in the values here, and in the store."""
        summaries = [recording.component for recording in recordings if not recording.whole]
        places = [self._column[name] for name in self._layout.grid.summary if name in summaries]
        for rows, columns in consecutive(self._columns[place] for place in places):
            yield slice(places[rows.start], places[rows.stop - 1] + 1), columns

    def _stored_activations(self) -> Iterator[tuple[str, tuple[Any, ...], NDArray[Any]]]:
        part, samples = self._part, self._part.samples
        for name in self._layout.grid.activations:
            if Recording(name, whole=True) in part.baseline_recordings:
                yield f"activations/{name}/baseline_status", (samples,), np.array(COMPLETE)
            if Recording(name, whole=True) in part.recordings:
                for _, runs in consecutive(part.interventions):
                    yield f"activations/{name}/status", (runs, samples), np.array(COMPLETE)
