"""Mean, SD, norm and cosine of activations, collected over one part of a study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.execute.fill.parts import Part
from causalunet.plan import BASELINE
from causalunet.results.engine.writer import consecutive
from causalunet.results.meaning.layout import Layout, Recording
from causalunet.results.meaning.schema import COMPLETE

__all__ = ["Summaries"]

_NAMES = ("mean", "sd", "norm", "cosine")


class Summaries:
    """Numbers per (run, sample, step, component).

    Parameters
    ----------
    layout : Layout
    part : Part
    samples : int
        In the part.
    """

    def __init__(self, layout: Layout, part: Part, samples: int) -> None:
        self._part, self._layout = part, layout
        recorded = {*part.baseline_recordings, *part.recordings}
        columns = [
            column for column, name in enumerate(layout.grid.summary) if Recording(name, whole=False) in recorded
        ]
        self._column = {layout.grid.summary[column]: place for place, column in enumerate(columns)}
        self._columns = columns
        # The baseline comes last.
        self._row = {**{run: row for row, run in enumerate(part.interventions)}, BASELINE: len(part.interventions)}
        sizes = (len(self._row), samples, len(layout.recorded_steps), len(columns))
        self._values = {name: np.full(sizes, np.nan, np.float32) for name in _NAMES} if columns else {}

    def add(self, name: str, runs: tuple[int, ...], position: int, value: Tensor, reference: Tensor) -> None:
        """Summarise a block's output, (sample, channel, y, x), for every run that shares the call."""
        if name not in self._column:
            return
        flat, column, chosen = value.flatten(1), self._column[name], [self._row[run] for run in runs]
        numbers = {
            "mean": flat.mean(dim=1),
            "sd": flat.std(dim=1, correction=0),
            "norm": flat.norm(dim=1),
            "cosine": torch.cosine_similarity(flat, reference.flatten(1), dim=1),
        }
        for key, number in numbers.items():
            self._values[key][chosen, :, position, column] = number.cpu().numpy()

    def finished(self) -> Iterator[tuple[str, tuple[Any, ...], NDArray[Any]]]:
        """What is to be written: path, index and values; also which activations are now stored."""
        part, samples, n = self._part, self._part.samples, self._part.samples.stop - self._part.samples.start
        for here, columns in self._stretches(part.baseline_recordings):
            for key in _NAMES[:3] if self._values else ():
                values = self._values[key][self._row[BASELINE]][..., here]
                yield f"activation_summary/baseline_{key}", (samples, slice(None), columns), values
            done = np.full((n, columns.stop - columns.start), COMPLETE)
            yield "activation_summary/baseline_status", (samples, columns), done
        for here, columns in self._stretches(part.recordings):
            for rows, runs in consecutive(part.interventions):
                for key, of_key in self._values.items():
                    yield f"activation_summary/{key}", (runs, samples, slice(None), columns), of_key[rows][..., here]
                done = np.full((runs.stop - runs.start, n, columns.stop - columns.start), COMPLETE)
                yield "activation_summary/status", (runs, samples, columns), done
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
