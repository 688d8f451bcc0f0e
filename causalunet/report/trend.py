"""Trend: the mean of an outcome along a coordinate of the interventions (figures 4, 7, 9, 10, 18, 20 and 21)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from causalunet.analysis.curves import mean_curve
from causalunet.analysis.described import Threshold, described, thresholds_of
from causalunet.analysis.sweeps import named_selections
from causalunet.design.outcomes import Outcome
from causalunet.dims import INTERVENTION
from causalunet.errors import SpecError
from causalunet.report.backends import Backend, check_backend
from causalunet.report.series import series_along
from causalunet.report.style import GREY, Look, legend_above, look, new_figure, step_axis, style

if TYPE_CHECKING:
    from bokeh.models import LayoutDOM

__all__ = [
    "Band",
    "along",
    "band_name",
    "bounded_axis",
    "draw_curve",
    "draw_curves",
    "draw_threshold",
    "named_curves",
    "plot_trend",
]

Band = Literal["sd", "interval"]
"""What is drawn around a mean: one standard deviation of the samples, or the confidence interval of the mean."""

_PROBABILITY = 0.95
_MOST_MARKERS = 25
_FEW = 4  # curves in a figure of usual width, with bands of usual strength
_ALONG = {
    "start": "step at which the intervention starts",
    "length": "steps cut in a row",
    "relax": "steps of relaxation between the cuts",
    "cuts": "number of cuts",
    "bottom": "decoder blocks removed, from the bottom",
    "top": "skip connections removed, from the top",
}


@overload
def plot_trend(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    by: str = "start",
    variable: str | Outcome | Sequence[str | Outcome] = "ssim",
    threshold: Threshold = "own",
    band: Band = "sd",
    allow_incomplete: bool = False,
    ax: Axes | Sequence[Axes] | None = None,
    backend: Literal["matplotlib"] = "matplotlib",
) -> Figure: ...


@overload
def plot_trend(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    by: str = "start",
    variable: str | Outcome | Sequence[str | Outcome] = "ssim",
    threshold: Threshold = "own",
    band: Band = "sd",
    allow_incomplete: bool = False,
    backend: Literal["bokeh"],
) -> LayoutDOM: ...


def plot_trend(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    by: str = "start",
    variable: str | Outcome | Sequence[str | Outcome] = "ssim",
    threshold: Threshold = "own",
    band: Band = "sd",
    allow_incomplete: bool = False,
    ax: Axes | Sequence[Axes] | None = None,
    backend: Backend = "matplotlib",
) -> Figure | LayoutDOM:
    """Draw the mean over samples of an outcome, by start step or another coordinate, for one or several selections.

    Parameters
    ----------
    results : xarray.DataTree
    selections : mapping, optional
        One selection, such as ``{"kind": "skip_steps", "length": 5}``, or names in the legend to selections. By default
        every sweep of the study, or of other coordinates than the start those that `series_along` finds.
    by : str
        Coordinate of the interventions that the curves run along, such as "start", "length", "relax" or "bottom".
    variable : str, Outcome or sequence of them
        With one number per cell, one panel each.
    threshold : float, mapping of str to float, "own" or None
        Drawn as a line: of the first variable, or by variable. By default the outcome's own, which for SSIM is 0.8.
    band : {"sd", "interval"}
        Around the mean: plus and minus one standard deviation of the samples, or the 95 % BCa bootstrap interval of the
        mean.
    allow_incomplete : bool
        As for `causalunet.analysis.curve`.
    ax : matplotlib Axes or sequence of Axes, optional
        To draw into, one per variable; a new figure by default.
    backend : {"matplotlib", "bokeh"}
        "bokeh" for a browser or a notebook: numbers are told under the mouse, and the legend hides and shows curves.
        Needs the extra ``explore``; ``bokeh.io.show`` shows what comes back.

    Returns
    -------
    matplotlib.figure.Figure or bokeh.models.LayoutDOM

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.curve`.
    MissingExtraError
        Bokeh is asked for and not installed.

    Notes
    -----
    Means that are infinite, as of PSNR where images are identical, are not drawn; a note below the axis says so.

    Without relaxation, `cut_relax_cut` stores one window of all cuts together, so a curve along ``relax`` that begins
    at 0 is selected by its labels: ``{"bottom 4": {"intervention": [...]}}``.

    Examples
    --------
    >>> figure = plot_trend(results, {"kind": "skip_steps"}, variable=("ssim", "psnr"))
    """
    check_backend(backend, into=ax is not None)
    variables = (variable,) if isinstance(variable, str | Outcome) else tuple(variable)
    named = named_curves(results, selections, by)
    probability = _PROBABILITY if band == "interval" else None
    curves = [
        {
            name: mean_curve(
                results, one, by=by, probability=probability, allow_incomplete=allow_incomplete, **selection
            )
            for name, selection in named.items()
        }
        for one in variables
    ]
    told = [described(one, _attrs(of_variable)) for one, of_variable in zip(variables, curves, strict=True)]
    thresholds = thresholds_of(threshold, told)
    steps = results["baseline"].sizes["step"]
    if backend == "bokeh":
        from causalunet.report.interactive.curves import draw_panels

        return draw_panels(curves, by=by, steps=steps, thresholds=thresholds, band=band)
    return _on_paper(curves, by=by, steps=steps, thresholds=thresholds, band=band, ax=ax)


def _on_paper(
    curves: Sequence[Mapping[str, xr.Dataset]],
    *,
    by: str,
    steps: int,
    thresholds: Sequence[float | None],
    band: Band,
    ax: Axes | Sequence[Axes] | None,
) -> Figure:
    """Draw a panel for each outcome, into a new figure or into axes."""
    with style():
        own = new_figure(max(3.4 * len(curves), 4.8 if len(curves[0]) > _FEW else 0), 2.7) if ax is None else None
        axes = list(own.subplots(1, len(curves), squeeze=False)[0]) if own else _listed(ax, len(curves))
        for one_ax, of_variable, line in zip(axes, curves, thresholds, strict=True):
            draw_curves(one_ax, of_variable, by=by, threshold=line, band=band)
            if by == "start":
                step_axis(one_ax, steps)
        if own is not None:
            legend_above(own, axes)
            return own
        for one_ax in axes:
            one_ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return cast("Figure", axes[0].get_figure(root=True))


def draw_curves(ax: Axes, curves: Mapping[str, xr.Dataset], *, by: str, threshold: float | None, band: Band) -> None:
    """Draw the mean curves of one outcome, with axes and threshold.

    Parameters
    ----------
    ax : matplotlib Axes
    curves : mapping of str to xarray.Dataset
        Names in the legend to what `causalunet.analysis.mean_curve` gives.
    by : str
        Dimension of the curves.
    threshold : float or None
        Drawn as a line.
    band : {"sd", "interval"}
    """
    alpha = 0.15 if len(curves) <= _FEW else 0.06
    for position, (label, curve) in enumerate(curves.items()):
        draw_curve(ax, curve, look(position), label=label, band=band, alpha=alpha, by=by)
    first = next(iter(curves.values()))
    told = described(first.attrs["variable"], first["mean"].attrs)
    bounded_axis([ax], told.axis)
    if threshold is not None:
        draw_threshold(ax, threshold)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.set_xlabel(along(by) + _left_out(curves, by))
    ax.set_ylabel(f"{told.label}\n{band_name(band, first.attrs['samples'])}")


def draw_curve(
    ax: Axes,
    curve: xr.Dataset,
    appearance: Look,
    *,
    label: str,
    band: Band,
    alpha: float = 0.15,
    by: str = "start",
    deviations: float = 1,
) -> None:
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
    by : str
        Dimension of the curve.
    deviations : float
        Half width of the band in standard deviations, where it is one of those.
    """
    start, mean = curve[by].values, curve["mean"].values
    shown = np.isfinite(mean)
    if band == "sd":
        half = deviations * curve["sd"].values
        lower, upper = mean - half, mean + half
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


def along(by: str) -> str:
    """What the axis along a coordinate of the interventions is called."""
    return _ALONG.get(by, by.replace("_", " "))


def draw_threshold(ax: Axes, threshold: float, *, vertical: bool = False) -> None:
    """Draw a threshold as a dotted line across the axes, on y unless told otherwise."""
    draw = ax.axvline if vertical else ax.axhline
    draw(threshold, color=GREY, linewidth=0.9, linestyle=(0, (1, 1.5)), label=f"threshold {threshold:g}", zorder=1)


def bounded_axis(axes: Sequence[Axes], span: tuple[float, float] | None) -> None:
    """Let y run over all that an outcome shows, such as 0 to 1 for SSIM, and further down if lower values are drawn."""
    if span is None:
        return
    lowest = min(span[0], *(ax.dataLim.y0 for ax in axes))
    for ax in axes:
        ax.set_ylim(lowest, span[1] + 0.02 * (span[1] - span[0]))
        ax.yaxis.set_major_locator(MultipleLocator(0.2 * (span[1] - span[0])))


def band_name(band: Band, samples: int, deviations: float = 1) -> str:
    """What line and band of a figure are, in words."""
    kind = f"{deviations:g} SD" if band == "sd" else "95 % interval"
    joint = "±" if band == "sd" else "and"
    return f"mean {joint} {kind}, n = {samples}"


def named_curves(results: xr.DataTree, selections: Mapping[str, Any] | None, by: str) -> Mapping[str, Any]:
    """Read what figures of curves take as selections: names in the legend to selections; see `plot_trend`."""
    if by == INTERVENTION:
        raise SpecError(
            "Curves are drawn along numbers, and interventions side by side are none. plot_grid(by='intervention') "
            "shows their images, plot_histogram their distributions, and mean_curve(by='intervention') has the numbers."
        )
    if selections is None and by != "start":
        return series_along(results, by)
    if selections and not isinstance(selections.get(INTERVENTION, ""), str | Mapping):
        return {"selected interventions": selections}  # a list of labels is no name for a legend
    return named_selections(results, selections)


def _attrs(curves: Mapping[str, xr.Dataset]) -> Mapping[str, Any]:
    """Attributes of the outcome that some curves are of."""
    found: Mapping[str, Any] = next(iter(curves.values()))["mean"].attrs
    return found


def _left_out(curves: Mapping[str, xr.Dataset], by: str) -> str:
    """Note of the infinite means that are not drawn, if there are any."""
    counts = {label: int((~np.isfinite(curve["mean"])).sum()) for label, curve in curves.items()}
    places = "starts" if by == "start" else "points"
    parts = [f"{label} at {n} of {curves[label].sizes[by]} {places}" for label, n in counts.items() if n]
    return f"\ninfinite, not drawn: {', '.join(parts)}" if parts else ""


def _listed(ax: Axes | Sequence[Axes] | None, variables: int) -> list[Axes]:
    axes = [ax] if isinstance(ax, Axes) else list(ax or ())
    if len(axes) != variables:
        raise SpecError(f"{len(axes)} axes given for {variables} variables; give one per variable, or none.")
    return axes
