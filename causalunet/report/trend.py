"""Trend: the mean of an outcome over the start of the intervention, one curve per selection (figures 4 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from causalunet.analysis.curves import mean_curve
from causalunet.analysis.sweeps import named_selections
from causalunet.errors import SpecError
from causalunet.report.style import GREY, Look, axis_label, legend_above, look, new_figure, step_axis, style

__all__ = ["Band", "band_name", "draw_curve", "draw_threshold", "plot_trend", "similarity_axis"]

Band = Literal["sd", "interval"]
"""What is drawn around a mean: one standard deviation of the samples, or the confidence interval of the mean."""

_PROBABILITY = 0.95
_MOST_MARKERS = 25
_FEW = 4  # curves in a figure of usual width, with bands of usual strength


def plot_trend(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    variable: str | Sequence[str] = "ssim",
    threshold: float | None = 0.8,
    band: Band = "sd",
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw the mean over samples of an outcome, by start step, for one or several selections.

    Parameters
    ----------
    results : xarray.DataTree
    selections : mapping, optional
        One selection, such as ``{"kind": "skip_steps", "length": 5}``, or names in the legend to selections. By default
        every sweep of the study.
    variable : str or sequence of str
        Outcomes with one number per cell, one panel each.
    threshold : float or None
        Drawn as a line where the variable is SSIM.
    band : {"sd", "interval"}
        Around the mean: plus and minus one standard deviation of the samples, or the 95 % BCa bootstrap interval of the
        mean.
    ax : matplotlib Axes or sequence of Axes, optional
        To draw into, one per variable; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.curve`.

    Notes
    -----
    Means that are infinite, as of PSNR where images are identical, are not drawn; a note below the axis says so.

    Examples
    --------
    Figure 4 of the paper:

    >>> plot_trend(results, {"kind": "skip_steps"}, variable=("ssim", "psnr"))  # doctest: +SKIP
    """
    variables = (variable,) if isinstance(variable, str) else tuple(variable)
    named = named_selections(results, selections)
    curves = [
        {
            name: mean_curve(results, one, probability=_PROBABILITY if band == "interval" else None, **selection)
            for name, selection in named.items()
        }
        for one in variables
    ]
    with style():
        own = new_figure(max(3.4 * len(variables), 4.8 if len(named) > _FEW else 0), 2.7) if ax is None else None
        axes = list(own.subplots(1, len(variables), squeeze=False)[0]) if own else _listed(ax, len(variables))
        for one_ax, of_variable in zip(axes, curves, strict=True):
            _draw_variable(one_ax, of_variable, results["baseline"].sizes["step"], threshold, band)
        if own is not None:
            legend_above(own, axes)
            return own
        for one_ax in axes:
            one_ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return cast("Figure", axes[0].get_figure(root=True))


def draw_curve(ax: Axes, curve: xr.Dataset, appearance: Look, *, label: str, band: Band, alpha: float = 0.15) -> None:
    """Draw one mean curve with its band; infinite means are left out.

    Parameters
    ----------
    ax : matplotlib Axes
    curve : xarray.Dataset
        From `causalunet.analysis.mean_curve`.
    appearance : Look
    label : str
        In the legend.
    band : {"sd", "interval"}
    alpha : float
        Opacity of the band.
    """
    start, mean = curve["start"].values, curve["mean"].values
    shown = np.isfinite(mean)
    if band == "sd":
        lower, upper = mean - curve["sd"].values, mean + curve["sd"].values
    else:
        lower, upper = curve["interval"].values.T
    every = -(-len(start) // _MOST_MARKERS)
    ax.plot(
        start[shown],
        mean[shown],
        label=label,
        markevery=every,
        markeredgecolor="white",
        markeredgewidth=0.4,
        **appearance._asdict(),
    )
    ax.fill_between(start[shown], lower[shown], upper[shown], facecolor=appearance.color, alpha=alpha, edgecolor="none")


def draw_threshold(ax: Axes, threshold: float) -> None:
    """Draw a threshold as a dotted line across the axes."""
    ax.axhline(
        threshold, color=GREY, linewidth=0.9, linestyle=(0, (1, 1.5)), label=f"threshold {threshold:g}", zorder=1
    )


def similarity_axis(axes: Sequence[Axes]) -> None:
    """Let y run from 0, or from the lowest value drawn if that is negative, to 1, the most that SSIM can be."""
    lowest = min(0.0, *(ax.dataLim.y0 for ax in axes))
    for ax in axes:
        ax.set_ylim(lowest, 1.02)
        ax.yaxis.set_major_locator(MultipleLocator(0.2))


def band_name(band: Band, samples: int) -> str:
    """What line and band of a figure are, in words."""
    kind = "1 SD" if band == "sd" else "95 % interval"
    joint = "±" if band == "sd" else "and"
    return f"mean {joint} {kind}, n = {samples}"


def _draw_variable(ax: Axes, curves: Mapping[str, xr.Dataset], steps: int, threshold: float | None, band: Band) -> None:
    for position, (label, curve) in enumerate(curves.items()):
        draw_curve(ax, curve, look(position), label=label, band=band, alpha=0.15 if len(curves) <= _FEW else 0.06)
    first = next(iter(curves.values()))
    variable = first.attrs["variable"]
    if variable == "ssim":
        similarity_axis([ax])
        if threshold is not None:
            draw_threshold(ax, threshold)
    step_axis(ax, steps)
    ax.set_xlabel("step at which the intervention starts" + _left_out(curves))
    ax.set_ylabel(f"{axis_label(variable, first['mean'].attrs)}\n{band_name(band, first.attrs['samples'])}")


def _left_out(curves: Mapping[str, xr.Dataset]) -> str:
    """Note of the infinite means that are not drawn, if there are any."""
    counts = {label: int((~np.isfinite(curve["mean"])).sum()) for label, curve in curves.items()}
    parts = [f"{label} at {n} of {curves[label].sizes['start']} starts" for label, n in counts.items() if n]
    return f"\ninfinite, not drawn: {', '.join(parts)}" if parts else ""


def _listed(ax: Axes | Sequence[Axes] | None, variables: int) -> list[Axes]:
    axes = [ax] if isinstance(ax, Axes) else list(ax or ())
    if len(axes) != variables:
        raise SpecError(f"{len(axes)} axes given for {variables} variables; give one per variable, or none.")
    return axes
