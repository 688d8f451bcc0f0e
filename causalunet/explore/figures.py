"""The figure of each view, drawn by Bokeh."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np

from causalunet.analysis.described import described
from causalunet.design.limits import plain
from causalunet.dims import FACTOR, PLACE, SAMPLE, STEP
from causalunet.errors import SpecError
from causalunet.explore import numbers
from causalunet.explore.choice import Choice, choose
from causalunet.explore.stored import Stored
from causalunet.report.interactive.curves import draw_band, draw_mean_curves
from causalunet.report.interactive.sheet import Tile, coloured, draw_sheet, pixels
from causalunet.report.interactive.style import (
    DARK,
    LIGHT,
    Ink,
    add_entry,
    frame,
    legend_below,
    need,
    step_range,
    text_of,
)
from causalunet.report.style import step_ticks

if TYPE_CHECKING:
    import xarray as xr
    from bokeh.models import LayoutDOM
    from bokeh.plotting import figure as BokehFigure

__all__ = ["CLICKABLE", "draw", "drawn"]

CLICKABLE = "clickable"
"""Name of renderers whose sources say in the column ``key``, as part of a link, what a click on them chooses."""

_AMPLIFY = 4
_PAIR, _FILM, _MAP = 250, 88, 150  # pixels of a tile


def draw(results: xr.DataTree, view: str, *, dark: bool = False, **chosen: Any) -> LayoutDOM:
    """Draw a view of the explorer.

    Parameters
    ----------
    results : xarray.DataTree
        As `causalunet.open_results` gives it.
    view : {"curves", "images", "factors", "trajectory", "attention", "plan", "audit"}
        As far as the study has what it shows.
    dark : bool
        For dark pages.
    **chosen
        What it is of: ``intervention`` by its label, ``sample`` and ``step`` by their coordinates, ``outcome``; of
        attention also ``maps``, their place, and ``token``. By default the first of each, and the first step of the
        window.

    Returns
    -------
    bokeh.models.LayoutDOM
        A figure, or several below each other; ``bokeh.io.show`` shows it, ``bokeh.embed.file_html`` makes a page of it.

    Raises
    ------
    MissingExtraError
        Bokeh is not installed.
    SpecError
        What is chosen is not there.
    StoreError
        It was not run yet, or failed.

    Examples
    --------
    >>> figure = draw(results, "curves", sample=1)
    """
    need()
    stored = Stored(results)
    return drawn(stored, choose(stored, view=view, **chosen), DARK if dark else LIGHT)


def drawn(stored: Stored, choice: Choice, ink: Ink) -> LayoutDOM:
    """Draw what is looked at."""
    views: dict[str, Callable[[Stored, Choice, Ink], LayoutDOM]] = {
        "curves": _curves,
        "images": _images,
        "factors": _factors,
        "trajectory": _trajectory,
        "attention": _attention,
        "plan": _plan,
        "audit": _audit,
    }
    if choice.view not in views:
        raise SpecError(f"There is no view {choice.view!r}; there is {', '.join(views)}.")
    return views[choice.view](stored, choice, ink)


def _curves(stored: Stored, choice: Choice, ink: Ink) -> BokehFigure:
    curves = numbers.trends(stored, choice)
    told = described(choice.outcome, next(iter(curves.values()))["mean"].attrs)
    figure = draw_mean_curves(
        curves, by="start", steps=len(stored.steps), threshold=told.threshold, band="interval", ink=ink, name=CLICKABLE
    )
    own = numbers.of_sample(stored, choice)
    values = np.where(np.isfinite(own.values), own.values, np.nan)
    line = figure.line(own["start"].values, values, line_dash="dashed", line_width=1.5, color=ink.text)
    add_entry(figure, f"sample {choice.sample}", line)
    _mark(figure, stored.rows_by_label[choice.intervention].start, ink)
    return figure


def _images(stored: Stored, choice: Choice, ink: Ink) -> LayoutDOM:
    before, after = numbers.image_of(stored, choice)
    pair = [
        Tile(pixels(before), "baseline", told="run without intervention"),
        Tile(pixels(after), "intervened", told=choice.intervention),
        Tile(pixels(np.abs(after - before) * _AMPLIFY), f"{_AMPLIFY} x |difference|", told="absolute difference"),
    ]
    film = []
    for label, image in numbers.images_by_start(stored, choice).items():
        start = stored.rows_by_label[label].start
        told = f"from step {start}" + (", not complete" if image is None else "")
        shown = pixels(np.zeros_like(before) if image is None else image)
        key = urlencode({"intervention": label})
        film.append(Tile(shown, str(start), told=told, key=key, marked=label == choice.intervention))
    return _below(draw_sheet([pair], tile=_PAIR, ink=ink), draw_sheet([film], tile=_FILM, ink=ink, name=CLICKABLE))


def _factors(stored: Stored, choice: Choice, ink: Ink) -> BokehFigure:
    from bokeh.models import HoverTool, NumeralTickFormatter

    changes = numbers.own_changes(stored, choice)
    figure = frame(ink, height=400, x_range=step_range(len(stored.steps)), y_range=(-0.03, 1.03))
    starts, labels = changes["start"].values, np.broadcast_to(changes["intervention"].values, changes.sizes["start"])
    entries: dict[str, list[Any]] = {}
    dots = []
    for position, factor in enumerate(map(str, changes[FACTOR].values)):
        one, colour = changes.sel({FACTOR: factor}), ink.curve(position)
        bounds = one["interval"].values.T
        columns = {
            "start": starts,
            "share": one["share"].values,
            "told": [f"{low:.0%} to {high:.0%}" for low, high in bounds.T],
            "unreadable": one["unreadable"].values,
            "factor": [plain(factor)] * len(starts),
            "key": [urlencode({"intervention": label}) for label in labels.tolist()],
        }
        band = draw_band(figure, starts, bounds[0], bounds[1], colour, alpha=0.07)
        line = figure.line(starts, columns["share"], color=colour, line_width=2)
        style = {"color": colour, "size": 8, "line_color": ink.paper, "name": CLICKABLE}
        dots.append(figure.scatter("start", "share", source=columns, **style))
        entries[factor] = [band, line, dots[-1]]
    tips = [("factor", "@factor"), ("start", "@start"), ("changed", "@share{0%}"), ("95 % Wilson interval", "@told")]
    figure.add_tools(HoverTool(renderers=dots, tooltips=[*tips, ("not readable", "@unreadable{0%}")]))
    _mark(figure, stored.rows_by_label[choice.intervention].start, ink)
    _along_steps(figure, stored, "step at which the intervention starts")
    figure.yaxis.axis_label = f"samples with another value, n = {changes.attrs['samples']}"
    figure.yaxis.formatter = NumeralTickFormatter(format="0%")
    legend_below(figure, ink, entries)
    return figure


def _trajectory(stored: Stored, choice: Choice, ink: Ink) -> LayoutDOM:
    film = [
        Tile(
            pixels(image),
            str(step),
            told=f"estimate of x_0 at step {step}",
            key=urlencode({"step": step}),
            marked=step == choice.step,
        )
        for step, image in numbers.states(stored, choice).items()
    ]
    return _below(draw_sheet([film], tile=_FILM, ink=ink, name=CLICKABLE), _distances(stored, choice, ink))


def _distances(stored: Stored, choice: Choice, ink: Ink) -> BokehFigure:
    from bokeh.models import BoxAnnotation, HoverTool

    found = numbers.distances(stored, choice)
    figure = frame(ink, height=320, x_range=step_range(len(stored.steps)))
    steps = found[STEP].values
    entries: dict[str, list[Any]] = {}
    dots = []
    for position, (name, words) in enumerate({"x0_distance": "x0_hat", "eps_distance": "eps"}.items()):
        colour = ink.curve(position)
        if found.sizes[SAMPLE]:
            columns = {
                "step": steps,
                "mean": found[name].mean(SAMPLE).values,
                "of": [words] * len(steps),
                "key": [urlencode({"step": step}) for step in steps.tolist()],
            }
            line = figure.line(steps, columns["mean"], color=colour, line_width=2)
            style = {"color": colour, "size": 6, "line_color": ink.paper, "name": CLICKABLE}
            dots.append(figure.scatter("step", "mean", source=columns, **style))
            entries[f"{words}, mean, n = {found.sizes[SAMPLE]}"] = [line, dots[-1]]
        if choice.sample in found[SAMPLE].values:
            own = found[name].sel({SAMPLE: choice.sample}).values
            line = figure.line(steps, own, color=colour, line_dash="dashed", line_width=1.5)
            entries[f"{words}, sample {choice.sample}"] = [line]
    declared = numbers.fired(stored, choice)["declared"]
    for step in declared[STEP].values[(declared > 0).any(PLACE).values].tolist():
        box = BoxAnnotation(left=step - 0.5, right=step + 0.5, fill_color=ink.grid, fill_alpha=0.8, line_color=None)
        box.level = "underlay"
        figure.add_layout(box)
    figure.add_tools(HoverTool(renderers=dots, tooltips=[("step", "@step"), ("of", "@of"), ("RMS", "@mean{0.0000}")]))
    _mark(figure, choice.step, ink)
    _along_steps(figure, stored, "step; shaded where something is edited")
    _keep_range(figure, found["x0_distance"].values, found["eps_distance"].values)
    figure.yaxis.axis_label = "RMS difference to the baseline"
    legend_below(figure, ink, entries)
    return figure


def _attention(stored: Stored, choice: Choice, ink: Ink) -> LayoutDOM:
    found = numbers.maps(stored, choice)
    every = np.concatenate([np.ravel(values) for values in found.values()])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    rows = []
    for run, values in found.items():
        named = {"mean": values.mean(axis=0), **{f"head {head}": one for head, one in enumerate(values)}}
        rows.append(
            [
                Tile(coloured(one, low, high), name, told=f"{run}, {name}: {one.min():.4f} to {one.max():.4f}")
                for name, one in named.items()
            ]
        )
    return _below(draw_sheet(rows, tile=_MAP, ink=ink))


def _plan(stored: Stored, choice: Choice, ink: Ink) -> BokehFigure:
    found = numbers.fired(stored, choice)
    told = np.where(found["declared"].values > 0, "edited", "")
    return _by_step(stored, found, told, {"edited": ink.curve(0)}, ink)


def _audit(stored: Stored, choice: Choice, ink: Ink) -> LayoutDOM:
    found = numbers.fired(stored, choice)
    declared, fired = found["declared"].values, found["fired"].values
    told = np.where(declared == fired, np.where(declared > 0, "as declared", ""), "otherwise")
    colours = {"as declared": ink.curve(2), "otherwise": ink.curve(1)}
    return _below(_by_step(stored, found, told, colours, ink), _seconds(stored, choice, ink))


def _by_step(stored: Stored, found: xr.Dataset, told: Any, colours: dict[str, str], ink: Ink) -> BokehFigure:
    """Cells of places, one below the other, and steps."""
    from bokeh.models import HoverTool

    places = [str(place) for place in found[PLACE].values]
    rows = max(1, len(places))
    figure = frame(ink, height=110 + 26 * rows, x_range=step_range(len(stored.steps)), y_range=(rows - 0.5, -0.5))
    entries: dict[str, list[Any]] = {}
    for name, colour in colours.items():
        step, place = np.nonzero(told == name)
        if not len(step):
            continue
        columns = {
            "step": found[STEP].values[step],
            "row": place,
            "place": [plain(places[at]) for at in place],
            "declared": found["declared"].values[step, place],
            "fired": found["fired"].values[step, place],
        }
        boxes = figure.rect("step", "row", 0.9, 0.7, source=columns, color=colour, line_color=None)
        tips = [("place", "@place"), ("step", "@step"), ("declared", "@declared"), ("applied", "@fired")]
        figure.add_tools(HoverTool(renderers=[boxes], tooltips=tips))
        entries[name] = [boxes]
    figure.yaxis.ticker = list(range(len(places)))
    figure.yaxis.major_label_overrides = {at: text_of(place) for at, place in enumerate(places)}
    figure.ygrid.grid_line_color = None
    _along_steps(figure, stored, "step")
    legend_below(figure, ink, entries)
    return figure


def _seconds(stored: Stored, choice: Choice, ink: Ink) -> BokehFigure:
    from bokeh.models import HoverTool

    spent = numbers.spent(stored)
    samples = spent[SAMPLE].values
    figure = frame(ink, height=260, x_range=(samples.min() - 0.6, samples.max() + 0.6))
    columns = {
        "sample": samples,
        "seconds": spent["seconds"].values,
        "calls": spent["unet_calls"].values,
        "drift": spent["drift"].values,
        "null": spent["null_difference"].values,
        "colour": [ink.curve(1) if sample == choice.sample else ink.curve(0) for sample in samples],
        "key": [urlencode({"sample": sample}) for sample in samples.tolist()],
    }
    bars = figure.vbar("sample", 0.8, "seconds", source=columns, color="colour", line_color=None, name=CLICKABLE)
    bars.nonselection_glyph = bars.selection_glyph = None
    tips = [("sample", "@sample"), ("seconds", "@seconds{0.00}"), ("U-Net calls", "@calls")]
    tips += [("drift", "@drift{0.0e+0}"), ("null difference", "@null{0.0e+0}")]
    figure.add_tools(HoverTool(renderers=[bars], tooltips=tips))
    figure.y_range.start = 0
    _keep_range(figure, columns["seconds"])
    figure.xaxis.axis_label = "sample"
    figure.yaxis.axis_label = "seconds"
    return figure


def _below(*figures: BokehFigure) -> LayoutDOM:
    from bokeh.layouts import column

    return column(*figures, sizing_mode="stretch_width", spacing=12)


def _keep_range(figure: BokehFigure, *values: Any) -> None:
    """Give the axis a range where there is no number to take one from: Bokeh complains of that in the browser."""
    from bokeh.models import Range1d

    if not any(np.isfinite(one).any() for one in values):
        figure.y_range = Range1d(0, 1)


def _mark(figure: BokehFigure, step: int, ink: Ink) -> None:
    """Draw a line down at a step."""
    from bokeh.models import Span

    figure.add_layout(Span(location=step, dimension="height", line_color=ink.text, line_alpha=0.5, line_width=1))


def _along_steps(figure: BokehFigure, stored: Stored, words: str) -> None:
    figure.xaxis.ticker = step_ticks(len(stored.steps))
    figure.xaxis.axis_label = words
