"""How figures for browsers look: as those on paper, in light and in dark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causalunet.design.limits import plain
from causalunet.errors import MissingExtraError
from causalunet.report.style import look

if TYPE_CHECKING:
    from bokeh.models import GlyphRenderer, PlainText
    from bokeh.plotting import figure as BokehFigure

__all__ = ["DARK", "LIGHT", "Ink", "add_entry", "frame", "legend_below", "need", "step_range", "text_of"]

_FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_ENTRY = 22  # pixels of a line of a legend
_LEGEND = 36  # letters in a line of a legend, on a narrow page


@dataclass(frozen=True, slots=True)
class Ink:
    """Colours of a figure.

    Parameters
    ----------
    paper, text, line, grid : str
        Behind everything, of words, of axes, of the grid.
    curves : tuple of str
        By position.
    """

    paper: str
    text: str
    line: str
    grid: str
    curves: tuple[str, ...]

    def curve(self, position: int) -> str:
        """Colour of a curve by its position."""
        return self.curves[position % len(self.curves)]


LIGHT = Ink("#ffffff", "#1f2328", "#8a9099", "#e8eaed", tuple(look(position).color for position in range(7)))
DARK = Ink(
    "#14181d",
    "#e4e7ea",
    "#7d858f",
    "#2a3037",
    ("#5fb4ea", "#f08a4b", "#35c79a", "#e39cc8", "#f0b43c", "#9aa7ff", "#e4e7ea"),
)
"""Of Okabe and Ito 2008, lightened to stand out from a dark page."""


def need() -> None:
    """Raise `MissingExtraError` unless Bokeh is installed."""
    try:
        import bokeh  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Figures for browsers need bokeh, which is not installed. Install the extra: "
            "pip install 'causalunet[explore]'."
        ) from error


def text_of(text: str) -> PlainText:
    """A text that is shown as it is: prompts and labels may hold dollar signs, which Bokeh reads as TeX."""
    from bokeh.models import PlainText

    return PlainText(text=plain(text))


def frame(ink: Ink, *, height: int, title: str = "", **options: Any) -> BokehFigure:
    """Make an empty figure as wide as there is room.

    Parameters
    ----------
    ink : Ink
    height : int
        Pixels; 0 where an ``aspect_ratio`` tells it.
    title : str
    **options
        Of ``bokeh.plotting.figure``.
    """
    from bokeh.plotting import figure

    size: dict[str, Any] = {"height": height, "sizing_mode": "stretch_width"} if height else {}
    drawn = figure(
        **{
            "tools": "pan,wheel_zoom,box_zoom,reset,save",
            "active_scroll": None,
            "active_drag": None,
            "toolbar_location": "right",
            "background_fill_color": ink.paper,
            "border_fill_color": ink.paper,
            "outline_line_color": None,
            "min_border": 8,
            **size,
            **options,
        }
    )
    drawn.toolbar.logo = None
    drawn.toolbar.autohide = True
    if title:
        drawn.title.text = text_of(title)
    drawn.title.text_font = _FONT
    drawn.title.text_font_size = "13px"
    drawn.title.text_color = ink.text
    for axis in drawn.axis:
        axis.axis_line_color = axis.major_tick_line_color = ink.line
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = ink.text
        axis.major_label_text_font = axis.axis_label_text_font = _FONT
        axis.major_label_text_font_size = "12px"
        axis.axis_label_text_font_size = "13px"
        axis.axis_label_text_font_style = "normal"
    drawn.grid.grid_line_color = ink.grid
    return drawn


def legend_below(drawn: BokehFigure, ink: Ink, entries: dict[str, list[Any]]) -> None:
    """Put a legend below a figure, whose entries hide and show their curves."""
    from bokeh.models import Legend

    legend = Legend(orientation="horizontal", click_policy="hide", border_line_color=None)
    legend.ncols = _LEGEND // max(map(len, entries), default=1) or 1
    legend.background_fill_alpha = 0
    legend.label_text_color = ink.text
    legend.label_text_font = _FONT
    legend.label_text_font_size = "12px"
    legend.margin = legend.padding = 2
    legend.spacing = 18 if legend.ncols > 1 else 2
    legend.location = "left"
    drawn.height += _ENTRY * (-(-len(entries) // legend.ncols) - 1)
    drawn.add_layout(legend, "below")
    for name, renderers in entries.items():
        add_entry(drawn, name, *renderers)


def add_entry(drawn: BokehFigure, name: str, *renderers: GlyphRenderer) -> None:
    """Add a line to the legend of a figure."""
    from bokeh.core.properties import value
    from bokeh.models import LegendItem

    drawn.legend[0].items.append(LegendItem(label=value(plain(name)), renderers=list(renderers)))


def step_range(steps: int) -> tuple[float, float]:
    """Ends of an axis of steps, from T down to 1, as the run goes."""
    margin = 0.02 * steps
    return steps + margin, 1 - margin
