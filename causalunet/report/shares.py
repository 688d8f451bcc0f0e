"""Shares of samples with their intervals, one line per row: how often an image shows what was asked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from causalunet.analysis.intervals import wilson_share
from causalunet.report.style import GREY, look, new_figure, style

__all__ = ["plot_shares"]


def plot_shares(
    counts: Mapping[str, Mapping[str, int]],
    samples: int | Mapping[str, int],
    *,
    threshold: float | None = None,
    probability: float = 0.95,
    figure: Figure | None = None,
) -> Figure:
    """Draw shares as points with Wilson intervals.

    Parameters
    ----------
    counts : mapping of str to mapping of str to int
        For every series, by row: how many of the samples.
    samples : int or mapping of str to int
        Number of samples of every series; by row where rows are of different numbers.
    threshold : float, optional
        A share to mark.
    probability : float
        Coverage of the interval.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = list(next(iter(counts.values())))
    totals = np.array([samples[row] if isinstance(samples, Mapping) else samples for row in rows])
    with style():
        figure = figure or new_figure(4.2, 0.7 + 0.26 * len(rows))
        ax = figure.subplots()
        for position, (name, series) in enumerate(counts.items()):
            appearance = look(position)
            heights = np.arange(len(rows)) + 0.18 * (position - (len(counts) - 1) / 2)
            values = np.array([series[row] for row in rows])
            bounds = [wilson_share(*one, probability=probability) for one in zip(values, totals.tolist(), strict=True)]
            reach = np.abs(np.transpose(bounds) - values / totals)
            ax.errorbar(
                values / totals,
                heights,
                xerr=reach,
                fmt=appearance.marker,
                color=appearance.color,
                capsize=2,
                label=name,
            )
        if threshold is not None:
            ax.axvline(threshold, color=GREY, linestyle=":", linewidth=0.8, label=f"{threshold:.0%}")
        several = isinstance(samples, Mapping)
        told = [f"{row} (n = {n})" for row, n in zip(rows, totals, strict=True)] if several else rows
        ax.set_yticks(range(len(rows)), told)
        ax.invert_yaxis()
        ax.set_xlim(right=1.005)
        ax.xaxis.set_major_formatter("{x:.0%}")
        whole = "share of n" if several else f"share of {samples} images"
        ax.set_xlabel(f"{whole}, with {probability:.0%} Wilson interval")
        figure.legend(loc="outside upper center", ncols=len(counts) + 1)
    return figure
