"""Samples: a sheet of images with their prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from causalunet.analysis.described import described
from causalunet.analysis.selection import check_variable, complete_baselines
from causalunet.design.outcomes import Outcome
from causalunet.dims import SAMPLE
from causalunet.report.chosen import one_intervention
from causalunet.report.pictures import captions, line_height, pack, sample_positions, show, wrap
from causalunet.report.style import new_figure, style

__all__ = ["plot_samples"]

_CELL = 1.0
_FONT = 6.5
_LINES = 4


def plot_samples(
    results: xr.DataTree,
    selection: Mapping[str, Any] | None = None,
    *,
    variable: str | Outcome = "ssim",
    samples: int | Sequence[int] = 18,
    columns: int = 6,
    figure: Figure | None = None,
) -> Figure:
    """Show images of the baseline run, or of one intervention, with their prompts below.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping, optional
        What picks one intervention, such as ``{"kind": "ablate_block", "bottom": 2, "start": 60}`` or
        ``{"intervention": label}``; its captions give an outcome too. By default the baseline.
    variable : str or Outcome
        In the captions of an intervention, with one number per cell.
    samples : int or sequence of int
        The first so many samples, or samples by their coordinate.
    columns : int
        Images in a row.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SpecError, StoreError
        The selection is not of one intervention, a sample is not there, or some failed or were not run yet.
    """
    data = _chosen(results, selection, variable)
    data = data.isel({SAMPLE: sample_positions(data, samples)})
    images = data["image"].values
    wide = min(columns, len(images))
    rows = -(-len(images) // wide)
    height, width = (_CELL * size / max(images.shape[-2:]) for size in images.shape[-2:])
    texts = [wrap(text, width, _FONT, _LINES) for text in captions(data)]
    if selection is not None:
        values = data[check_variable(data, variable)]
        told = described(variable, values.attrs)
        texts = [f"{told.short(value)}\n{text}" for value, text in zip(values.values, texts, strict=True)]
    below = line_height(_FONT) * max(len(text.splitlines()) for text in texts)
    with style():
        if figure is None:
            figure = new_figure((width + 0.05) * wide, (height + below + 0.12) * rows)
        pack(figure)
        axes = figure.subplots(rows, wide, squeeze=False).ravel()
        for ax, image, text in zip(axes, images, texts, strict=False):
            show(ax, image, "S")
            ax.set_xlabel(text, fontsize=_FONT, labelpad=2)
        for ax in axes[len(images) :]:
            ax.set_axis_off()
    return figure


def _chosen(results: xr.DataTree, selection: Mapping[str, Any] | None, variable: str | Outcome) -> xr.Dataset:
    if selection is not None:
        return one_intervention(results, selection, variable, allow_incomplete=True)
    return complete_baselines(results, allow_incomplete=True)
