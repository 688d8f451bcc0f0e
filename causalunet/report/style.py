"""How figures look: sizes, colours that everyone can tell apart, and the axis of steps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from causalunet.design.limits import plain

__all__ = ["GREY", "Look", "legend_above", "look", "new_figure", "step_axis", "step_ticks", "style"]

GREY = "0.35"
"""Of reference lines and their labels."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (2, 1)))
_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "text.parse_math": False,  # a prompt may hold dollar signs
    "xtick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7,
    "ytick.major.width": 0.6,
}


class Look(NamedTuple):
    """Colour, marker and line style of one curve, different in all three so that it also reads in grey.

    Attributes
    ----------
    color, marker : str
    linestyle : str or tuple
        As matplotlib takes it.
    """

    color: str
    marker: str
    linestyle: Any


def look(position: int) -> Look:
    """Look of a curve by its position. Colours are those of Okabe and Ito 2008, without the yellow that print loses."""
    return Look(_COLOURS[position % len(_COLOURS)], _MARKERS[position % len(_MARKERS)], _LINES[position % len(_LINES)])


def style() -> AbstractContextManager[None]:
    """Matplotlib's settings for as long as a figure is drawn; the user's own are back afterwards."""
    return mpl.rc_context(_SETTINGS)


class ShownFigure(Figure):
    """A figure that notebooks show although pyplot does not know of it.

    Labels and prompts come from stores, perhaps those of strangers. No font has their control characters, and
    matplotlib's warning would hand them to the terminal, so they are spelt out.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw, with control characters spelt out."""
        for text in self.findobj(Text):
            if (told := plain(text.get_text())) != text.get_text():
                text.set_text(told)
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png")
        return content.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that pyplot does not know of, laid out without overlaps.

    Parameters
    ----------
    width, height : float
        Inches.
    """
    return ShownFigure(figsize=(width, height), dpi=150, layout="constrained")


def legend_above(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend of all axes above a figure, which grows by the lines that the legend takes beyond one."""
    entries: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    width, height = figure.get_size_inches()
    columns = next((n for n in range(len(entries), 1, -1) if _legend_width(list(entries), n) < width), 1)
    figure.set_size_inches(width, height + 0.16 * (-(-len(entries) // columns) - 1))
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=columns)


def _legend_width(labels: list[str], columns: int) -> float:
    """Estimated width in inches of a legend in matplotlib's order, column by column."""
    longest = [max(map(len, part)) for part in np.array_split(np.array(labels, dtype=object), columns)]
    return sum(0.6 + 0.054 * letters for letters in longest)  # the handle with its gaps, and so much per letter


def step_axis(ax: Axes, steps: int) -> None:
    """Let x run from the first step, T, down to 1, as the run goes."""
    margin = 0.02 * steps
    ax.set_xlim(steps + margin, 1 - margin)
    ax.set_xticks(step_ticks(steps))


def step_ticks(steps: int) -> list[int]:
    """Ticks from T down to 1, both named, round numbers between, none so close that labels would touch."""
    unit = 1
    for unit in (factor * 10**power for power in range(6) for factor in (1, 2, 5)):
        if steps <= 6 * unit:
            break
    between = [step for step in range(unit, steps, unit) if 1 + 0.6 * unit <= step <= steps - 0.6 * unit]
    return [steps, *reversed(between), *([1] if steps > 1 else [])]
