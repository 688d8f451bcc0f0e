"""Mean curves with their bands, for browsers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import xarray as xr

from causalunet.analysis.described import described
from causalunet.design.limits import plain
from causalunet.report.interactive.style import LIGHT, Ink, frame, legend_below, step_range, text_of
from causalunet.report.style import step_ticks
from causalunet.report.trend import Band, along, band_name

if TYPE_CHECKING:
    from bokeh.models import LayoutDOM
    from bokeh.plotting import figure as BokehFigure

__all__ = ["draw_band", "draw_mean_curves", "draw_panels"]


def draw_panels(
    curves: Sequence[Mapping[str, xr.Dataset]],
    *,
    by: str,
    steps: int,
    thresholds: Sequence[float | None],
    band: Band,
) -> LayoutDOM:
    """Draw the mean curves of several outcomes side by side; arguments as for `draw_mean_curves`, by outcome."""
    from bokeh.layouts import row

    panels = [
        draw_mean_curves(one, by=by, steps=steps, threshold=line, band=band)
        for one, line in zip(curves, thresholds, strict=True)
    ]
    return panels[0] if len(panels) == 1 else row(*panels, sizing_mode="stretch_width")


def draw_mean_curves(
    curves: Mapping[str, xr.Dataset],
    *,
    by: str,
    steps: int,
    threshold: float | None,
    band: Band,
    ink: Ink = LIGHT,
    name: str = "means",
) -> BokehFigure:
    """Draw the mean curves of one outcome.

    Parameters
    ----------
    curves : mapping of str to xarray.Dataset
        Names in the legend to what `causalunet.analysis.mean_curve` gives.
    by : str
        Dimension of the curves.
    steps : int
        Of the run, for the axis along ``start``.
    threshold : float or None
        Drawn as a line.
    band : {"sd", "interval"}
        Drawn of those curves that have it.
    ink : Ink
    name : str
        Of the renderers of the means, whose column ``key`` says as part of a link which intervention each is of.

    Returns
    -------
    bokeh.plotting.figure
    """
    from bokeh.models import HoverTool, Span

    first = next(iter(curves.values()))
    told = described(first.attrs["variable"], first["mean"].attrs)
    axis: dict[str, Any] = {"x_range": step_range(steps)} if by == "start" else {}
    drawn = frame(ink, height=380, **axis)
    entries: dict[str, list[Any]] = {}
    dots = []
    for position, (label, curve) in enumerate(curves.items()):
        bounds = _bounds(curve, band)
        entries[label] = parts = []
        if bounds is not None:
            parts.append(draw_band(drawn, curve[by].values, *bounds, ink.curve(position)))
        source = _source(label, curve, by, bounds)
        parts.append(drawn.line(by, "mean", source=source, color=ink.curve(position), line_width=2))
        style = {"color": ink.curve(position), "size": 8, "line_color": ink.paper, "name": name}
        dots.append(drawn.scatter(by, "mean", source=source, **style))
        parts.append(dots[-1])
    if threshold is not None:
        drawn.add_layout(Span(location=threshold, dimension="width", line_color=ink.line, line_dash="dotted"))
    tips = [(by, f"@{by}"), (plain(told.title), "@mean{0.0000}"), ("band", "@told"), ("of", "@name")]
    drawn.add_tools(HoverTool(renderers=dots, tooltips=tips))
    if by == "start":
        drawn.xaxis.ticker = step_ticks(steps)
    drawn.xaxis.axis_label = text_of(along(by))
    drawn.yaxis.axis_label = text_of(f"{told.label}, {band_name(band, first.attrs['samples'])}".replace("\n", " "))
    legend_below(drawn, ink, entries)
    return drawn


def draw_band(drawn: BokehFigure, along_x: Any, lower: Any, upper: Any, colour: str, alpha: float = 0.16) -> Any:
    """Shade what lies between two bounds, where both are finite."""
    shown = np.isfinite(lower) & np.isfinite(upper)
    return drawn.varea(along_x[shown], lower[shown], upper[shown], color=colour, fill_alpha=alpha)


def _bounds(curve: xr.Dataset, band: Band) -> tuple[Any, Any] | None:
    mean = curve["mean"].values
    if band == "sd":
        half = curve["sd"].values
        return mean - half, mean + half
    return tuple(curve["interval"].values.T) if "interval" in curve else None


def _source(label: str, curve: xr.Dataset, by: str, bounds: tuple[Any, Any] | None) -> Any:
    from bokeh.models import ColumnDataSource

    mean = curve["mean"].values
    interventions = np.broadcast_to(np.asarray(curve["intervention"].values), mean.shape)
    told = ["not drawn"] * len(mean)
    if bounds is not None:
        told = [f"{low:.4f} to {high:.4f}" for low, high in zip(*bounds, strict=True)]
    columns = {
        by: curve[by].values,
        "mean": np.where(np.isfinite(mean), mean, np.nan),
        "told": told,
        "name": [plain(label)] * len(mean),
        "key": [urlencode({"intervention": str(one)}) for one in interventions],
    }
    return ColumnDataSource(columns)
