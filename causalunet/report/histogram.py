"""Histogram: how an outcome of one intervention is spread over the samples (figures 13 and 19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from causalunet.analysis.described import Described, Threshold, described, thresholds_of, variable_name
from causalunet.analysis.intervals import wilson_share
from causalunet.analysis.selection import check_variable, complete_samples, select_interventions
from causalunet.design.limits import plain_number
from causalunet.design.outcomes import Outcome
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError
from causalunet.report.pictures import wrap
from causalunet.report.style import legend_above, look, new_figure, style
from causalunet.report.trend import draw_threshold

__all__ = ["plot_histogram"]

_PROBABILITY = 0.95
_MOST = 12
_WIDTH = 2.5  # inches of a panel


def plot_histogram(
    results: xr.DataTree,
    selection: Mapping[str, Any],
    *,
    variable: str | Outcome = "ssim",
    threshold: Threshold = "own",
    bins: int | Sequence[float] = 20,
    columns: int = 3,
    allow_incomplete: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Draw the distribution of an outcome over samples, a panel for each intervention.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        What picks one intervention or several, such as ``{"kind": "ablate_block", "bottom": 2, "start": [60, 20]}``, or
        names of panels to selections of one intervention each.
    variable : str or Outcome
        With one number per cell.
    threshold : float, "own" or None
        Drawn as a line, as by `plot_trend`, with the share of samples that are less alike and its 95 % Wilson interval.
    bins : int or sequence of float
        Edges, or number of bins: of SSIM, and other outcomes that figures show a given range of, on that range, and as
        many more of that width as values below need; of others from the smallest to the largest value. All panels
        share them.
    columns : int
        Panels in a row.
    allow_incomplete : bool
        As for `causalunet.analysis.curve`.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        Titles give the mean, the mean absolute deviation from it, and the share of samples that are less alike than the
        threshold.

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.curve`; also if there are more than 12 interventions to show.
    """
    data = _values(results, selection, variable_name(variable), allow_incomplete)
    values = {name: one.values.astype(np.float64) for name, one in data.items()}
    attrs = next(iter(data.values())).attrs
    told = described(variable, attrs)
    edges = _edges(np.concatenate(list(values.values())), told.axis, bins)
    (line,) = thresholds_of(threshold, [told])
    rows = -(-len(values) // columns)
    wide = -(-len(values) // rows)
    with style():
        figure = figure or new_figure(max(3.4, _WIDTH * wide), 0.55 + 2.15 * rows)
        axes = list(figure.subplots(rows, wide, sharex=True, sharey=True, squeeze=False).flat)
        for ax, (name, one) in zip(axes, values.items(), strict=False):
            _draw(ax, one, edges, line)
            title = wrap(name, _WIDTH if wide > 1 else 3.0, 8, lines=2)
            ax.set_title(f"{title}\n{_statistics(one, line, told)}", loc="left", fontsize=7)
        for ax in axes[len(values) :]:
            ax.set_axis_off()
        for ax in axes[max(0, len(values) - wide) : len(values)]:
            ax.tick_params(labelbottom=True)
            ax.set_xlabel(told.label)
        if told.axis is not None:
            axes[0].xaxis.set_major_locator(MultipleLocator(0.2 * (told.axis[1] - told.axis[0])))
        axes[0].yaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.supylabel(f"samples, n = {len(next(iter(values.values())))}", fontsize=8)
        legend_above(figure, axes[: len(values)])
    return figure


def _values(
    results: xr.DataTree, selection: Mapping[str, Any], variable: str, allow_incomplete: bool
) -> dict[str, xr.DataArray]:
    """Values over samples, by the name of the panel."""
    if selection and all(isinstance(value, Mapping) for value in selection.values()):
        parts = {name: _values(results, one, variable, allow_incomplete) for name, one in selection.items()}
        several = [name for name, part in parts.items() if len(part) > 1]
        if several:
            raise SpecError(
                f"A panel shows one intervention, and {several[0]!r} selects {len(parts[several[0]])}. "
                "Select more narrowly, for instance by start."
            )
        chosen = {name: next(iter(part.values())) for name, part in parts.items()}
    else:
        found = select_interventions(results, selection)
        check_variable(found, variable)
        if set(found[variable].dims) != {INTERVENTION, SAMPLE}:
            raise SpecError(f"{variable!r} is not one number per sample; a histogram needs one, as ssim has.")
        whole = complete_samples(found, variable, allow_incomplete=allow_incomplete)
        chosen = {str(one[INTERVENTION].values): one for one in whole[variable]}
    if len(chosen) > _MOST:
        raise SpecError(
            f"{len(chosen)} interventions fit the selection; a figure holds {_MOST} histograms. "
            "Select more narrowly, for instance by start, or draw the means with plot_trend."
        )
    return chosen


def _edges(
    values: NDArray[np.float64], span: tuple[float, float] | None, bins: int | Sequence[float]
) -> NDArray[np.float64]:
    bins = plain_number(bins)
    if not isinstance(bins, int):
        return np.asarray(bins, dtype=np.float64)
    if bins < 1:
        raise SpecError(f"A histogram of {bins} bins asked; give at least 1, or the edges.")
    finite = values[np.isfinite(values)]
    if span is not None:
        least, width = span[0], span[1] - span[0]
        below = max(0, int(np.ceil((least - finite.min()) / width * bins)))
        return least + width * np.arange(-below, bins + 1) / bins
    return np.histogram_bin_edges(finite if len(finite) else np.zeros(1), bins)


def _draw(ax: Axes, values: NDArray[np.float64], edges: NDArray[np.float64], threshold: float | None) -> None:
    finite = values[np.isfinite(values)]
    counts, _ = np.histogram(finite, edges)
    ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=look(5).color, edgecolor="white", linewidth=0.4)
    if len(finite):
        ax.axvline(finite.mean(), color=look(1).color, linewidth=1.2, label="mean")
    if threshold is not None:
        draw_threshold(ax, threshold, vertical=True)
    ax.set_xlim(edges[0], edges[-1])


def _statistics(values: NDArray[np.float64], threshold: float | None, told: Described) -> str:
    """Mean, mean absolute deviation, share less alike than the threshold, and what is not drawn, in words."""
    finite = values[np.isfinite(values)]
    unit = "" if told.units == "1" else f" {told.units}"
    lines = []
    if len(finite):
        deviation = np.abs(finite - finite.mean()).mean()
        lines += [f"mean {finite.mean():#.3g}{unit}", f"mean absolute deviation {deviation:.2g}{unit}"]
    if threshold is not None:
        count = int((told.sign * values < told.sign * threshold).sum())
        side = "below" if told.sign > 0 else "above"
        low, high = wilson_share(count, len(values), probability=_PROBABILITY)
        lines.append(
            f"{100 * count / len(values):.0f} % {side} {threshold:g}, 95 % Wilson [{100 * low:.0f}, {100 * high:.0f}]"
        )
    if len(finite) < len(values):
        lines.append(f"{len(values) - len(finite)} infinite, not drawn and not in the mean")
    return "\n".join(lines)
