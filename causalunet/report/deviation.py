"""Deviation: where in the image an intervention changes how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from causalunet.dims import CHANNEL, SAMPLE, X, Y
from causalunet.report.chosen import baseline_images, one_intervention
from causalunet.report.pictures import wrap
from causalunet.report.style import new_figure, style

__all__ = ["plot_deviation"]

_TOGETHER = 64  # samples read at once


def plot_deviation(
    results: xr.DataTree,
    selection: Mapping[str, Any],
    *,
    allow_incomplete: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Draw the mean absolute deviation of the intervened images from the baseline's, pixel by pixel.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        What picks one intervention, such as ``{"kind": "skip_steps", "start": 60}`` or ``{"intervention": label}``.
    allow_incomplete : bool
        As for `causalunet.analysis.curve`.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        A heat map of the mean over samples and channels, in units of images in [0, 1]. The title gives the mean over
        all pixels.

    Raises
    ------
    SpecError, StoreError
        The selection is not of one intervention, or some samples failed or were not run yet.
    """
    data = one_intervention(results, selection, allow_incomplete=allow_incomplete)
    samples = data.sizes[SAMPLE]
    total = np.zeros((data.sizes[Y], data.sizes[X]))
    for first in range(0, samples, _TOGETHER):
        part = data["image"].isel({SAMPLE: slice(first, first + _TOGETHER)})
        order = (SAMPLE, CHANNEL, Y, X)
        baseline = baseline_images(results, part[SAMPLE]).transpose(*order).values
        total += np.abs(part.transpose(*order).values - baseline).mean(axis=1, dtype=np.float64).sum(axis=0)
    deviation = total / samples
    with style():
        figure = figure or new_figure(3.4, 2.9)
        ax = figure.subplots()
        shown = ax.imshow(deviation, cmap="cividis", vmin=0, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        label = wrap(str(data["intervention"].values), 3.2, 8, lines=2)
        ax.set_title(f"{label}\nmean absolute deviation {deviation.mean():.3g}, n = {samples}", loc="left")
        figure.colorbar(shown, label="mean |difference|, images in [0, 1]")
    return figure
