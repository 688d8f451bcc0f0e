"""Grid: images of the same samples side by side, a row per start of the intervention (figures 3, 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causalunet.analysis.curves import curve
from causalunet.dims import SAMPLE
from causalunet.errors import SpecError
from causalunet.report.pictures import captions, line_height, pack, sample_positions, show, wrap
from causalunet.report.style import new_figure, style

__all__ = ["plot_grid"]

_CELL = 0.8
_FONT = 6.5
_MOST_ROWS = 8


def plot_grid(
    results: xr.DataTree,
    selection: Mapping[str, Any],
    *,
    starts: Sequence[int] | None = None,
    samples: int | Sequence[int] = 6,
    figure: Figure | None = None,
) -> Figure:
    """Show images of intervened runs below those of the baseline run.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        One sweep, as for `causalunet.analysis.curve`.
    starts : sequence of int, optional
        Start steps, one row each, drawn in the order of the run. By default all of them, or eight spread evenly.
    samples : int or sequence of int
        Columns: the first so many samples, or samples by their coordinate.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        First row the baseline, titles the prompts, row labels the steps of the window.

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.curve`; also if a start or a sample is not there.
    """
    data = curve(results, "image", **selection)
    data = data.isel({SAMPLE: sample_positions(data, samples)})
    data = data.sel(start=_rows(data["start"].values, starts))
    baseline = results["baseline"].to_dataset()["image"].sel({SAMPLE: data[SAMPLE]})
    images = np.concatenate([baseline.values[None], data["image"].transpose("start", SAMPLE, ...).values])
    labels = ["baseline", *_row_labels(data)]
    height, width = (_CELL * size / max(images.shape[-2:]) for size in images.shape[-2:])
    titles = [wrap(caption, width, _FONT, lines=5) for caption in captions(data)]
    above = line_height(_FONT) * max(len(title.splitlines()) for title in titles)
    with style():
        if figure is None:
            figure = new_figure(0.75 + (width + 0.05) * images.shape[1], above + 0.1 + (height + 0.05) * len(images))
        pack(figure)
        axes = figure.subplots(*images.shape[:2], squeeze=False)
        for row, label in enumerate(labels):
            for column, ax in enumerate(axes[row]):
                show(ax, images[row, column], "NW")
            axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=_FONT, pad=3)
    return figure


def _rows(known: NDArray[np.int64], starts: Sequence[int] | None) -> list[int]:
    if starts is None:
        spread = np.linspace(0, len(known) - 1, min(len(known), _MOST_ROWS)).round().astype(int)
        return [int(start) for start in known[spread]]
    missing = [start for start in starts if start not in known]
    if missing or not len(starts):
        raise SpecError(f"No intervention of the selection starts at {missing}; there are {known.tolist()}.")
    return sorted(set(starts), reverse=True)


def _row_labels(data: xr.Dataset) -> list[str]:
    """The steps of each window, or its start where there are several windows."""
    starts = data["start"].values
    lengths = np.broadcast_to(data["length"].values, starts.shape)
    cuts = np.broadcast_to(data["cuts"].values, starts.shape)
    return [
        f"from step {start}" if cut > 1 else f"step {start}" if length == 1 else f"steps {start}-{start - length + 1}"
        for start, length, cut in zip(starts, lengths, cuts, strict=True)
    ]
