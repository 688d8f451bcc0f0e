"""Panels: one small trend per number of removed blocks, with the start from which on it is redundant (figure 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalunet.analysis.criteria import Criterion
from causalunet.analysis.curves import curve, mean_curve
from causalunet.analysis.redundancy import redundant_start
from causalunet.analysis.selection import intervention_columns, select_interventions
from causalunet.errors import SpecError
from causalunet.report.style import GREY, axis_label, legend_above, look, new_figure, step_axis, style
from causalunet.report.trend import Band, band_name, draw_curve, draw_threshold, similarity_axis

__all__ = ["plot_panels"]


def plot_panels(
    results: xr.DataTree,
    *,
    kind: str = "ablate_block",
    panel: str = "bottom",
    threshold: float = 0.8,
    lasting: bool = True,
    band: Band = "sd",
    columns: int = 3,
    allow_incomplete: bool = False,
    figure: Figure | None = None,
    **selection: Any,
) -> Figure:
    """Draw mean SSIM by start step, a panel for each value of a coordinate of the interventions.

    Parameters
    ----------
    results : xarray.DataTree
    kind : str
        Kind of the interventions.
    panel : str
        Coordinate with one panel per value, such as "bottom", or "top" for skip connections.
    threshold : float
        Of mean SSIM, drawn as a line. The start from which on a part is redundant is marked, if there is one: that of
        `causalunet.analysis.first_redundant_step`.
    lasting : bool
        Every later start must reach the threshold as well. False is the paper's reading: the first start of the run
        that reaches it is marked, whatever later ones do.
    band : {"sd", "interval"}
        As for `plot_trend`.
    columns : int
        Panels in a row.
    allow_incomplete : bool
        As for `causalunet.analysis.curve`.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.
    **selection
        What the interventions have in common besides, such as ``length=5``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.curve`.
    """
    chosen = select_interventions(results, {"kind": kind, **selection})
    known = intervention_columns(chosen)
    if panel not in known:
        raise SpecError(f"There is no coordinate {panel!r} to make panels of; there are {', '.join(sorted(known))}.")
    values = np.unique(known[panel])
    options: Any = {"probability": 0.95 if band == "interval" else None, "allow_incomplete": allow_incomplete}
    chosen_by = [{"kind": kind, **selection, panel: value.item()} for value in values]
    curves = [mean_curve(results, **options, **one) for one in chosen_by]
    criterion = Criterion(threshold=threshold)
    ssim = [curve(results, allow_incomplete=allow_incomplete, **one)["ssim"] for one in chosen_by]
    marked = [redundant_start(one, criterion, lasting=lasting) for one in ssim]
    wide = min(columns, len(values))
    rows = -(-len(values) // wide)
    with style():
        if figure is None:
            figure = new_figure(0.5 + 2.05 * wide, 0.7 + 1.5 * rows)
        axes = list(figure.subplots(rows, wide, sharex=True, sharey=True, squeeze=False).flat)
        for position, (ax, value, one) in enumerate(zip(axes, values, curves, strict=False)):
            draw_curve(ax, one, look(0), label="mean SSIM", band=band)
            draw_threshold(ax, threshold)
            _mark(ax, marked[position], one, threshold, lasting)
            ax.set_title(f"({_letter(position)}) {panel} = {value}", loc="left")
        step_axis(axes[0], results["baseline"].sizes["step"])
        similarity_axis(axes[: len(values)])
        _tidy(axes, len(values), wide)
        figure.supxlabel("step at which the intervention starts", fontsize=8)
        label = axis_label("ssim", curves[0]["mean"].attrs)
        figure.supylabel(f"{label}, {band_name(band, curves[0].attrs['samples'])}", fontsize=8)
        legend_above(figure, axes[: len(values)])
    return figure


def _tidy(axes: Sequence[Axes], used: int, wide: int) -> None:
    """Take away the axes that are left over, and number those above them."""
    for ax in axes[used:]:
        ax.set_axis_off()
    for ax in axes[max(0, used - wide) : used]:
        ax.tick_params(labelbottom=True)


def _mark(ax: Axes, start: int | None, curve: xr.Dataset, threshold: float, lasting: bool) -> None:
    """A line down from the start found, with its step; words if there is none."""
    if start is None:
        reached = bool((curve["mean"] >= threshold).any())
        words = "threshold reached, but not kept" if reached else "threshold not reached"
        ax.text(0.97, 0.06, words, transform=ax.transAxes, ha="right", color=GREY, fontsize=7)
        return
    mean, color = float(curve["mean"].sel(start=start)), look(1).color
    name = "mean SSIM ≥ {} from this start on" if lasting else "first start with mean SSIM ≥ {}"
    ax.plot([start, start], [min(0.0, mean), mean], color=color, linewidth=0.9)
    ax.plot(
        start,
        mean,
        color=color,
        label=name.format(f"{threshold:g}"),
        linestyle="none",
        marker="o",
        markersize=7,
        markerfacecolor="none",
    )
    past_middle = start < sum(curve["start"].values[[0, -1]]) / 2
    ax.annotate(
        f"{start}",
        (start, 0.0),
        xytext=(-3 if past_middle else 3, 4),
        textcoords="offset points",
        ha="right" if past_middle else "left",
        va="bottom",
        color=color,
    )


def _letter(position: int) -> str:
    return chr(ord("a") + position) if position < 26 else str(position + 1)
