"""Pairs: images with and without an intervention, where it changes least and most (figures 12 and 22)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from causalunet.analysis.described import Described, described
from causalunet.analysis.direction import sign_of
from causalunet.analysis.selection import check_variable
from causalunet.design.outcomes import Outcome
from causalunet.dims import CHANNEL, SAMPLE, X, Y
from causalunet.errors import SpecError
from causalunet.report.chosen import baseline_images, one_intervention
from causalunet.report.pictures import captions, line_height, pack, show, wrap
from causalunet.report.style import new_figure, style

__all__ = ["plot_pairs"]

_CELL = 0.95
_FONT = 6.5
_LINES = 5
_BESIDE = ("psnr",)
_GAP = 0.25  # between the best and the worst, as a share of a column


def plot_pairs(
    results: xr.DataTree,
    selection: Mapping[str, Any],
    *,
    variable: str | Outcome = "ssim",
    best: int = 4,
    worst: int = 4,
    amplify: float = 4.0,
    allow_incomplete: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Show the samples that one intervention leaves most and least alike, with what differs.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        What picks one intervention, such as ``{"kind": "skip_steps", "start": 60}`` or ``{"intervention": label}``.
    variable : str or Outcome
        Told below the images, and what decides which are most alike; with one number per cell and a direction.
    best, worst : int
        Number of samples of each; fewer, in proportion, where the study has fewer samples.
    amplify : float
        Factor on the absolute difference, stated in the figure; what it carries past 1 is shown as 1.
    allow_incomplete : bool
        As for `causalunet.analysis.curve`.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        Columns are samples, the best first; rows are baseline, intervened image and difference. Below them the
        outcome, PSNR if that is another, and prompt.

    Raises
    ------
    SpecError, StoreError
        The selection is not of one intervention, no sample is asked for, or some failed or were not run yet.
    """
    data = one_intervention(results, selection, variable, allow_incomplete=allow_incomplete)
    values = data[check_variable(data, variable)]
    positions, left = _extremes(sign_of(values) * values.values, best, worst)
    shown_by = [described(variable, values.attrs), *(described(name, data[name].attrs) for name in _BESIDE)]
    outcomes = list({one.name: one for one in shown_by if one.name in data.data_vars}.values())
    names = [f"best {i + 1}" for i in range(left)] + [f"worst {i}" for i in range(len(positions) - left, 0, -1)]
    data = data.isel({SAMPLE: positions})
    baseline = baseline_images(results, data[SAMPLE]).transpose(SAMPLE, CHANNEL, Y, X).values
    images = data["image"].transpose(SAMPLE, CHANNEL, Y, X).values
    rows = {
        "baseline": baseline,
        "intervened": images,
        f"|difference|\ntimes {amplify:g}": np.abs(images - baseline) * amplify,
    }
    height, width = (_CELL * size / max(images.shape[-2:]) for size in images.shape[-2:])
    texts = [
        _below(one, outcomes, caption, width) for one, caption in zip(_by_sample(data), captions(data), strict=True)
    ]
    below = line_height(_FONT) * max(len(text.splitlines()) for text in texts)
    widths = [1.0] * left + [_GAP] * (0 < left < len(positions)) + [1.0] * (len(positions) - left)
    columns = [column for column, share in enumerate(widths) if share == 1.0]
    with style():
        figure = figure or new_figure(0.75 + (width + 0.05) * sum(widths), below + 0.35 + (height + 0.05) * len(rows))
        pack(figure)
        grid = figure.add_gridspec(len(rows), len(widths), width_ratios=widths)
        axes = np.array([[figure.add_subplot(grid[row, column]) for column in columns] for row in range(len(rows))])
        for of_row, (label, shown) in zip(axes, rows.items(), strict=True):
            for ax, image in zip(of_row, shown, strict=True):
                show(ax, image, "S")
            of_row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
        for ax, name in zip(axes[0], names, strict=True):
            ax.set_title(name, fontsize=7, pad=3)
        for ax, text in zip(axes[-1], texts, strict=True):
            ax.set_xlabel(text, fontsize=_FONT, labelpad=2)
    return figure


def _extremes(values: np.ndarray, best: int, worst: int) -> tuple[list[int], int]:
    """Positions from the highest value down, and how many of them are the best."""
    if min(best, worst) < 0 or best + worst < 1:
        raise SpecError(f"best={best}, worst={worst} asks for no sample; give at least 1 of either.")
    order = np.argsort(-values, kind="stable").tolist()
    if best + worst > len(order):
        best = -(-len(order) * best // (best + worst))
        worst = len(order) - best
    return order[:best] + order[len(order) - worst :], best


def _by_sample(data: xr.Dataset) -> list[xr.Dataset]:
    return [data.isel({SAMPLE: position}) for position in range(data.sizes[SAMPLE])]


def _below(one: xr.Dataset, outcomes: Sequence[Described], caption: str, width: float) -> str:
    words = [
        told.short(value, 1 if told.name in _BESIDE else told.digits) if np.isfinite(value) else "identical"
        for told, value in ((told, float(one[told.name])) for told in outcomes)
    ]
    return "\n".join([*words, wrap(caption, width, _FONT, _LINES)])
