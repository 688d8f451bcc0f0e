"""Panels: one small trend per number of removed blocks, with the start from which on it is redundant (figure 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalunet.analysis.criteria import Criterion
from causalunet.analysis.curves import curve, mean_curve
from causalunet.analysis.described import Described, Threshold, described, thresholds_of
from causalunet.analysis.redundancy import redundant_start
from causalunet.analysis.selection import intervention_columns, select_interventions
from causalunet.design.outcomes import Outcome
from causalunet.errors import SpecError
from causalunet.report.style import GREY, legend_above, look, new_figure, step_axis, style
from causalunet.report.trend import Band, band_name, bounded_axis, draw_curve, draw_threshold

__all__ = ["plot_panels"]

_BLOCKS = MappingProxyType({"kind": "ablate_block"})


def plot_panels(
    results: xr.DataTree,
    selection: Mapping[str, Any] = _BLOCKS,
    *,
    panel: str = "bottom",
    variable: str | Outcome = "ssim",
    threshold: Threshold = "own",
    lasting: bool = True,
    band: Band = "sd",
    columns: int = 3,
    allow_incomplete: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Draw the mean of an outcome by start step, a panel for each value of a coordinate of the interventions.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        What the interventions have in common, such as ``{"kind": "ablate_block", "length": 5}``.
    panel : str
        Coordinate with one panel per value, such as "bottom", or "top" for skip connections.
    variable : str or Outcome
        With one number per cell.
    threshold : float, "own" or None
        Of the mean, drawn as a line, as by `plot_trend`. The start from which on a part is redundant is marked, if
        there is one: that of `causalunet.analysis.first_redundant_step`.
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

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.curve`.
    """
    chosen = select_interventions(results, selection)
    known = intervention_columns(chosen)
    if panel not in known:
        raise SpecError(f"There is no coordinate {panel!r} to make panels of; there are {', '.join(sorted(known))}.")
    values = np.unique(known[panel])
    options: Any = {"probability": 0.95 if band == "interval" else None, "allow_incomplete": allow_incomplete}
    chosen_by = [{**selection, panel: value.item()} for value in values]
    curves = [mean_curve(results, variable, **options, **one) for one in chosen_by]
    told = described(variable, curves[0]["mean"].attrs)
    (line,) = thresholds_of(threshold, [told])
    wide = min(columns, len(values))
    rows = -(-len(values) // wide)
    with style():
        if figure is None:
            figure = new_figure(0.5 + 2.05 * wide, 0.7 + 1.5 * rows)
        axes = list(figure.subplots(rows, wide, sharex=True, sharey=True, squeeze=False).flat)
        for position, (ax, value, one) in enumerate(zip(axes, values, curves, strict=False)):
            draw_curve(ax, one, look(0), label=f"mean {told.title}", band=band)
            if line is not None:
                draw_threshold(ax, line)
                cells = curve(results, variable, allow_incomplete=allow_incomplete, **chosen_by[position])[told.name]
                _mark(ax, _redundant(cells, told, line, lasting), one, told, line, lasting)
            ax.set_title(f"({_letter(position)}) {panel} = {value}", loc="left")
        step_axis(axes[0], results["baseline"].sizes["step"])
        bounded_axis(axes[: len(values)], told.axis)
        _tidy(axes, len(values), wide)
        figure.supxlabel("step at which the intervention starts", fontsize=8)
        figure.supylabel(f"{told.label}, {band_name(band, curves[0].attrs['samples'])}", fontsize=8)
        legend_above(figure, axes[: len(values)])
    return figure


def _redundant(cells: xr.DataArray, told: Described, threshold: float, lasting: bool) -> int | None:
    criterion = Criterion(variable=told.name, threshold=threshold, better="lower" if told.sign < 0 else "higher")
    return redundant_start(cells, criterion, lasting=lasting)


def _tidy(axes: Sequence[Axes], used: int, wide: int) -> None:
    """Take away the axes that are left over, and number those above them."""
    for ax in axes[used:]:
        ax.set_axis_off()
    for ax in axes[max(0, used - wide) : used]:
        ax.tick_params(labelbottom=True)


def _mark(ax: Axes, start: int | None, curve: xr.Dataset, told: Described, threshold: float, lasting: bool) -> None:
    """A line down from the start found, with its step; words if there is none."""
    if start is None:
        reached = bool((told.sign * curve["mean"] >= told.sign * threshold).any())
        words = "threshold reached, but not kept" if reached else "threshold not reached"
        ax.text(0.97, 0.06, words, transform=ax.transAxes, ha="right", color=GREY, fontsize=7)
        return
    mean, color = float(curve["mean"].sel(start=start)), look(1).color
    name = "mean {} from this start on" if lasting else "first start with mean {}"
    floor = told.axis[0] if told.axis is not None else float(curve["mean"].min())
    ax.plot([start, start], [min(floor, mean), mean], color=color, linewidth=0.9)
    ax.plot(
        start,
        mean,
        color=color,
        label=name.format(f"{told.title} {told.bound(threshold)}"),
        linestyle="none",
        marker="o",
        markersize=7,
        markerfacecolor="none",
    )
    past_middle = start < sum(curve["start"].values[[0, -1]]) / 2
    ax.annotate(
        f"{start}",
        (start, floor),
        xytext=(-3 if past_middle else 3, 4),
        textcoords="offset points",
        ha="right" if past_middle else "left",
        va="bottom",
        color=color,
    )


def _letter(position: int) -> str:
    return chr(ord("a") + position) if position < 26 else str(position + 1)
