"""Factors: how often another value of each factor is read than in the baseline image, a panel per factor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causalunet.analysis.factors import MIN_PROBABILITY, factor_changes, unrelated_share
from causalunet.dims import FACTOR
from causalunet.report.style import GREY, legend_above, look, new_figure, step_axis, style
from causalunet.report.trend import along, draw_curve, named_curves

__all__ = ["plot_factors"]

_ANY = "any factor"
_UNREADABLE = "not readable"
_UNRELATED = "two unrelated samples"
_FEW = 2  # curves whose intervals overlap without hiding each other


def plot_factors(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    by: str = "start",
    min_probability: float = MIN_PROBABILITY,
    columns: int = 3,
    allow_incomplete: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Draw the share of samples in which each factor changed, for one or several selections.

    Parameters
    ----------
    results : xarray.DataTree
    selections : mapping, optional
        As for `plot_trend`.
    by : str
        Coordinate of the interventions that the curves run along, such as "start" or "length".
    min_probability : float
        As for `causalunet.analysis.factor_changes`.
    columns : int
        Panels in a row.
    allow_incomplete : bool
        As for `causalunet.analysis.curve`.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for every factor, and one for any of them: shares with their 95 % Wilson intervals; dotted, where there
        are any, the shares of samples in which the factor is not readable; and as a grey line how often a factor
        differs between two samples that have nothing to do with each other.

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.factor_changes`.
    """
    named = named_curves(results, selections, by)
    options: dict[str, Any] = {"by": by, "min_probability": min_probability, "allow_incomplete": allow_incomplete}
    changes = {name: factor_changes(results, **options, **selection) for name, selection in named.items()}
    first = next(iter(changes.values()))
    unrelated = dict(zip(first[FACTOR].values, unrelated_share(results, min_probability).values, strict=True))
    titles = [*map(str, first[FACTOR].values), _ANY]
    wide = min(columns, len(titles))
    rows = -(-len(titles) // wide)
    with style():
        figure = figure or new_figure(0.5 + 2.05 * wide, 0.8 + 1.4 * rows)
        axes = list(figure.subplots(rows, wide, sharex=True, sharey=True, squeeze=False).flat)
        for ax, title in zip(axes, titles, strict=False):
            for position, (label, one) in enumerate(changes.items()):
                _draw(ax, one, title, position, label=label, by=by, alpha=0.15 if len(changes) <= _FEW else 0.05)
            if np.isfinite(unrelated.get(title, np.nan)):
                ax.axhline(unrelated[title], color=GREY, linewidth=0.9, zorder=1, label=_UNRELATED)
            ax.set_title(title, loc="left")
        _unreadable_entry(axes[0], changes)
        for ax in axes[len(titles) :]:
            ax.set_axis_off()
        _finish(figure, axes[: len(titles)], wide, by, first.attrs["samples"])
        if by == "start":
            step_axis(axes[0], results["baseline"].sizes["step"])
        legend_above(figure, axes[: len(titles)])
    return figure


def _draw(ax: Axes, changes: xr.Dataset, title: str, position: int, *, label: str, by: str, alpha: float) -> None:
    """One curve of one factor, or of any of them, with the share that is not readable."""
    appearance = look(position)
    if title == _ANY:
        curve = xr.Dataset({"mean": changes["any"], "interval": changes["any_interval"]})
    else:
        of_factor = changes.sel({FACTOR: title})
        curve = xr.Dataset({"mean": of_factor["share"], "interval": of_factor["interval"]})
        if of_factor["unreadable"].any():
            values = of_factor["unreadable"].values
            ax.plot(changes[by].values, values, color=appearance.color, linewidth=0.9, linestyle=":")
    draw_curve(ax, curve, appearance, label=label, band="interval", alpha=alpha, by=by)


def _unreadable_entry(ax: Axes, changes: Mapping[str, xr.Dataset]) -> None:
    """Name the dotted lines once, whatever their colour."""
    if any(one["unreadable"].any() for one in changes.values()):
        ax.plot([], [], color=GREY, linewidth=0.9, linestyle=":", label=_UNREADABLE)


def _finish(figure: Figure, axes: list[Axes], wide: int, by: str, samples: int) -> None:
    axes[0].set_ylim(-0.03, 1.03)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    for ax in axes[max(0, len(axes) - wide) :]:
        ax.tick_params(labelbottom=True)
    figure.supxlabel(along(by), fontsize=8)
    figure.supylabel(f"share with another value, n = {samples}\nand 95 % Wilson interval", fontsize=8)
