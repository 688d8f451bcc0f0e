"""Sheets of images for browsers: rows of tiles with a line below each, in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from causalunet.design.limits import plain
from causalunet.report.interactive.style import LIGHT, Ink, frame

if TYPE_CHECKING:
    from bokeh.plotting import figure as BokehFigure

__all__ = ["Tile", "coloured", "draw_sheet", "pixels"]

_BETWEEN = 0.06  # of a tile
_LEAST = 44  # pixels of a tile; a page may be scrolled
_LINE = 20  # pixels of a line of text, so that it has room where all is half as large


@dataclass(frozen=True, slots=True)
class Tile:
    """An image with its line.

    Parameters
    ----------
    image : ndarray of uint8
        (y, x, 3), as `pixels` and `coloured` make it.
    line : str
        Below it.
    told : str
        Under the mouse.
    key : str
        What a click on it is told as; empty where it is told nothing.
    marked : bool
        With a border.
    """

    image: NDArray[np.uint8]
    line: str
    told: str = ""
    key: str = ""
    marked: bool = False


def pixels(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """An image in [0, 1], (channel, y, x), as (y, x, 3); of other than three channels the first, in grey."""
    shown = image[:3] if image.shape[0] >= 3 else np.repeat(image[:1], 3, axis=0)
    return np.round(255 * np.clip(np.nan_to_num(np.moveaxis(shown, 0, -1)), 0, 1)).astype(np.uint8)


def coloured(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """A map, (y, x), in the colours of "cividis" between two values."""
    share = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    return np.asarray(mpl.colormaps["cividis"](share, bytes=True))[..., :3]


def draw_sheet(rows: Sequence[Sequence[Tile]], *, tile: int, ink: Ink = LIGHT, name: str = "tiles") -> BokehFigure:
    """Draw rows of tiles.

    Parameters
    ----------
    rows : sequence of sequence of Tile
    tile : int
        Width of one in pixels, where there is room; on a narrow page all get smaller together.
    ink : Ink
    name : str
        Of the renderer over the tiles, whose column ``key`` has theirs.

    Returns
    -------
    bokeh.plotting.figure
    """
    from bokeh.models import ColumnDataSource, HoverTool

    columns = max(map(len, rows))
    tall = max(one.image.shape[0] / one.image.shape[1] for row in rows for one in row)
    text = _LINE / tile + 0.06
    pitch = tall + text + _BETWEEN
    width, height = columns * (1 + _BETWEEN) - _BETWEEN, len(rows) * pitch - _BETWEEN
    placed = [
        (column * (1 + _BETWEEN), -number * pitch, one)
        for number, row in enumerate(rows)
        for column, one in enumerate(row)
    ]
    drawn = frame(
        ink,
        height=0,
        x_range=(-0.02, width + 0.02),
        y_range=(-height - 0.02, 0.02),
        frame_align=False,
        aspect_ratio=(width + 0.04) / (height + 0.04),
        sizing_mode="scale_width",
        min_width=round(min(tile, _LEAST) * (width + 0.04)),
        max_width=round(tile * (width + 0.04)),
        min_border=0,
        tools="save",
        toolbar_location=None,
    )
    drawn.axis.visible = False
    drawn.grid.visible = False
    shown = ColumnDataSource(
        {
            "image": [_packed(one.image) for _, _, one in placed],
            "x": [x for x, _, _ in placed],
            "y": [y - one.image.shape[0] / one.image.shape[1] for _, y, one in placed],
            "height": [one.image.shape[0] / one.image.shape[1] for _, _, one in placed],
        }
    )
    drawn.image_rgba("image", "x", "y", 1, "height", source=shown)
    _write(drawn, placed, tall, ink, f"{min(12, max(8, tile // 8))}px")
    tiles = ColumnDataSource(
        {
            "x": [x + 0.5 for x, _, _ in placed],
            "y": [y - tall / 2 for _, y, _ in placed],
            "told": [plain(one.told or one.line) for _, _, one in placed],
            "key": [one.key for _, _, one in placed],
            "border": [ink.curve(1) if one.marked else "rgba(0, 0, 0, 0)" for _, _, one in placed],
        }
    )
    over = drawn.rect("x", "y", 1, tall, source=tiles, fill_alpha=0, line_color="border", line_width=2, name=name)
    over.nonselection_glyph = over.selection_glyph = None
    drawn.add_tools(HoverTool(renderers=[over], tooltips="@told"))
    return drawn


def _packed(image: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pixels as Bokeh has them: one number each, rows from the bottom."""
    opaque = np.concatenate([image, np.full((*image.shape[:2], 1), 255, np.uint8)], axis=-1)
    return np.ascontiguousarray(opaque[::-1]).view(np.uint32)[..., 0]


def _write(drawn: BokehFigure, placed: list[tuple[float, float, Any]], tall: float, ink: Ink, size: str) -> None:
    from bokeh.core.properties import value

    drawn.text(
        [x + 0.5 for x, _, _ in placed],
        [y - tall - 0.03 for _, y, _ in placed],
        [plain(one.line) for _, _, one in placed],
        text_align="center",
        text_baseline="top",
        text_color=ink.text,
        text_font=value(drawn.title.text_font),
        text_font_size=size,
    )
