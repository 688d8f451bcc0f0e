"""Trade-off: what families of faster runs cost in similarity, against the time that they take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from causalunet.analysis.described import Described, Threshold, described, thresholds_of, variable_name
from causalunet.design.outcomes import Outcome
from causalunet.errors import SpecError
from causalunet.report.style import GREY, legend_above, look, new_figure, style
from causalunet.report.trend import draw_threshold

__all__ = ["plot_tradeoff"]


def plot_tradeoff(
    data: xr.Dataset,
    *,
    variable: str | Outcome = "ssim",
    threshold: Threshold = "own",
    joined: Collection[str] | None = None,
    marks: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the mean of an outcome against time for families of methods, such as shortcuts and runs of fewer steps.

    Parameters
    ----------
    data : xarray.Dataset
        Along ``method``: ``time``, as a share of the uncut run's; the variable, its mean to the uncut run's images;
        ``interval``, (method, bound), of that mean; the coordinates ``family`` and ``label``, which may be empty. The
        attribute ``samples`` and ``interval``'s attributes ``interval_kind`` and ``probability`` are told if they are
        there.
    variable : str or Outcome
        Variable of the data that is drawn.
    threshold : float, "own" or None
        Drawn as a line, as by `plot_trend`.
    joined : collection of str, optional
        Families whose points are joined by a line, because they differ in one number only; by default all.
    marks : mapping of str to float, optional
        Names in the legend to shares of time, such as ``{"27 % less time": 0.73}``, drawn as vertical lines.
    ax : matplotlib Axes, optional
        To draw into; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SpecError
        The data are not laid out so.
    """
    name = variable_name(variable)
    _check(data, name)
    told = described(variable, data[name].attrs)
    (line,) = thresholds_of(threshold, [told])
    with style():
        own = new_figure(4.6, 3.2) if ax is None else None
        drawn = own.subplots() if own is not None else cast("Axes", ax)
        families = list(dict.fromkeys(data["family"].values.tolist()))
        for position, family in enumerate(families):
            points = data.isel(method=data["family"].values == family).sortby("time")
            _draw_family(drawn, points, name, position, line=joined is None or family in joined)
        if line is not None:
            draw_threshold(drawn, line)
        for label, share in (marks or {}).items():
            drawn.axvline(share, color=GREY, linewidth=0.9, linestyle=(0, (6, 2)), label=label, zorder=1)
        _limit(drawn, data, told, [] if line is None else [line], list((marks or {}).values()))
        drawn.xaxis.set_major_formatter(PercentFormatter(1))
        drawn.set_xlabel("time, as a share of the uncut run's")
        drawn.set_ylabel(f"mean {told.label} to the uncut run\n{_interval_name(data)}")
        if own is not None:
            legend_above(own, [drawn])
        else:
            drawn.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return cast("Figure", drawn.get_figure(root=True))


def _draw_family(ax: Axes, points: xr.Dataset, variable: str, position: int, *, line: bool) -> None:
    appearance = look(position) if line else look(position)._replace(linestyle="none")
    time, mean = points["time"].values, points[variable].values
    reach = np.abs(points["interval"].transpose("bound", "method").values - mean)
    name = str(points["family"].values[0])
    ax.plot(time, mean, label=name, **appearance._asdict())
    ax.errorbar(time, mean, yerr=reach, fmt="none", capsize=2, elinewidth=0.8, color=appearance.color)
    # The labels of one family stand above its points, those of the next below: methods compared have like times.
    above = position % 2 == 0
    for x, y, text in zip(time, mean, points["label"].values, strict=True):
        ax.annotate(
            str(text),
            (x, y),
            xytext=(-4 if above else 4, 4 if above else -4),
            textcoords="offset points",
            ha="right" if above else "left",
            va="bottom" if above else "top",
            fontsize=6.5,
            color=appearance.color,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _limit(ax: Axes, data: xr.Dataset, told: Described, lines: list[float], times: list[float]) -> None:
    """Leave room for labels around what is drawn; neither axis has to start at 0, since nothing is a bar."""
    if told.axis is not None:
        most = told.axis[1]
        lowest = min(float(data["interval"].min()), float(data[told.name].min()), *lines, most)
        ax.set_ylim(np.floor(10 * lowest - 0.5) / 10, most + 0.02)
    else:
        ax.margins(y=0.15)
    fastest, slowest = min(float(data["time"].min()), *times, 1.0), max(float(data["time"].max()), *times, 1.0)
    ax.set_xlim(np.floor(10 * fastest - 0.8) / 10, slowest + 0.03)


def _interval_name(data: xr.Dataset) -> str:
    attrs = data["interval"].attrs
    kind = f"{100 * attrs['probability']:g} % interval" if "probability" in attrs else "interval"
    kind += f" ({attrs['interval_kind']})" if "interval_kind" in attrs else ""
    return f"with {kind}" + (f", n = {data.attrs['samples']}" if "samples" in data.attrs else "")


def _check(data: xr.Dataset, variable: str) -> None:
    wanted = {"time": {"method"}, variable: {"method"}, "interval": {"method", "bound"}}
    wanted |= {"family": {"method"}, "label": {"method"}}
    wrong = [name for name, dims in wanted.items() if name not in data.variables or set(data[name].dims) != dims]
    if wrong or not data.sizes["method"] or data.sizes["bound"] != 2:
        raise SpecError(
            f"A trade-off needs time, {variable}, family and label along 'method', and interval along 'method' and "
            f"'bound' (lower, upper); missing or of other dimensions: "
            f"{', '.join(wrong) or 'no method, or not two bounds'}."
        )
