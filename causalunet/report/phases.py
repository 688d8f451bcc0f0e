"""Phases: a trend with its phases shaded and named, and the boundaries between them with their intervals (figure 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalunet.analysis.curves import mean_curve
from causalunet.analysis.described import Threshold, described, thresholds_of
from causalunet.dims import STEP
from causalunet.errors import SpecError
from causalunet.report.style import legend_above, look, new_figure, step_axis, style
from causalunet.report.trend import Band, draw_curves

__all__ = ["plot_phases"]

_SHADES = ("0.90", "0.97")
_PROBABILITY = 0.95


def plot_phases(
    results: xr.DataTree,
    selection: Mapping[str, Any],
    phases: xr.Dataset,
    *,
    threshold: Threshold = None,
    band: Band = "sd",
    allow_incomplete: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Draw the mean curve of one sweep with its phases.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        The sweep, such as ``{"kind": "skip_steps", "length": 5}``.
    phases : xarray.Dataset
        What `causalunet.analysis.phases` found of that sweep.
    threshold : float, "own" or None
        Drawn as a line, as by `plot_trend`.
    band : {"sd", "interval"}
        As for `plot_trend`.
    allow_incomplete : bool
        As for `causalunet.analysis.curve`.
    ax : matplotlib Axes, optional
        To draw into; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure
        A phase reaches from its first start step to that of the next phase. Below, the intervals of the boundaries.

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.curve`; also if the phases are of other start steps.

    Examples
    --------
    >>> from causalunet.analysis import phases
    >>> selection = {"kind": "skip_steps", "length": 5}
    >>> figure = plot_phases(results, selection, phases(results, **selection))
    """
    variable = str(phases.attrs["variable"])
    probability = _PROBABILITY if band == "interval" else None
    curve = mean_curve(results, variable, probability=probability, allow_incomplete=allow_incomplete, **selection)
    _check(curve, phases)
    told = described(variable, curve["mean"].attrs)
    (line,) = thresholds_of(threshold, [told])
    with style():
        own = new_figure(4.6, 3.0) if ax is None else None
        drawn = own.subplots() if own is not None else cast("Axes", ax)
        draw_curves(
            drawn,
            {f"mean {told.title}": curve},
            by="start",
            threshold=line,
            band=band,
        )
        _shade(drawn, phases)
        _draw_fit(drawn, phases)
        _draw_boundaries(drawn, phases)
        step_axis(drawn, results["baseline"].sizes[STEP])
        if own is not None:
            legend_above(own, [drawn])
        else:
            drawn.legend(loc="lower left", bbox_to_anchor=(0, 1.12), borderaxespad=0.2)
    return cast("Figure", drawn.get_figure(root=True))


def _shade(ax: Axes, phases: xr.Dataset) -> None:
    """Shade every phase to the begin of the next, and name it above; neighbours' names stand at two heights."""
    first = phases["first"].values
    edges = [*first, int(phases["last"].values[-1])]
    for position, name in enumerate(phases["phase"].values):
        begin, end = edges[position], edges[position + 1]
        ax.axvspan(begin, end, facecolor=_SHADES[position % 2], edgecolor="none", zorder=0)
        ax.annotate(
            str(name),
            ((begin + end) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2 + 9 * (position % 2)),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )


def _draw_fit(ax: Axes, phases: xr.Dataset) -> None:
    """Draw what was put through every phase."""
    start = phases["start"].values
    for position, (first, last) in enumerate(zip(phases["first"].values, phases["last"].values, strict=True)):
        inside = (start <= first) & (start >= last)
        label = f"{phases.attrs['model']} within phases" if position == 0 else None
        ax.plot(start[inside], phases["fit"].values[inside], color="black", linewidth=0.9, label=label)


def _draw_boundaries(ax: Axes, phases: xr.Dataset) -> None:
    """Draw boundaries as lines, and their intervals as bars on the floor."""
    attrs, appearance = phases["interval"].attrs, look(1)
    for position, boundary in enumerate(phases["boundary"].values):
        low, high = phases["interval"].values[position]
        label = f"boundary, {100 * attrs['probability']:g} % interval ({attrs['interval_kind']})"
        ax.axvline(boundary, color=appearance.color, linewidth=0.9, linestyle=appearance.linestyle)
        # Bars of several boundaries may meet, so each has its own height.
        ax.errorbar(
            [boundary],
            [0.04 + 0.035 * position],
            xerr=np.abs([[boundary - low], [high - boundary]]),
            transform=ax.get_xaxis_transform(),
            fmt=appearance.marker,
            color=appearance.color,
            markersize=3,
            capsize=2,
            elinewidth=1.2,
            label=label if position == 0 else None,
        )


def _check(curve: xr.Dataset, phases: xr.Dataset) -> None:
    if not np.array_equal(curve["start"].values, phases["start"].values):
        raise SpecError(
            f"The selection starts at {curve['start'].values.tolist()}, the phases are of starts "
            f"{phases['start'].values.tolist()}. Give the selection that the phases were found of."
        )
