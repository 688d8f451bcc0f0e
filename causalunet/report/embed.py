"""Figures inside a page: as data addresses, so that the page is one file and a figure can do nothing but be seen."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from matplotlib.figure import Figure

from causalunet.report.files import encode

__all__ = ["Drawn", "Embedded", "embed"]

_DPI = 150
_MOST_BYTES = 400_000  # of an SVG; more curves than that holds are smaller as pixels
_PIXELS_PER_INCH = 130
"""Of the page: letters of 8 points become about as large as its small print."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure with its words.

    Parameters
    ----------
    title : str
        Of its section.
    caption : str
    alt : str
        What it shows, for those who cannot see it.
    figure : matplotlib.figure.Figure
    """

    title: str
    caption: str
    alt: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Embedded:
    """A figure as a page holds it.

    Parameters
    ----------
    title, caption, alt : str
        As of `Drawn`.
    source : str
        Data address.
    width, height : int
        Of the image at its natural size, in the page's pixels.
    """

    title: str
    caption: str
    alt: str
    source: str
    width: int
    height: int


def embed(drawn: Drawn) -> Embedded:
    """Write a figure into a data address: as SVG, or as PNG if it holds images or very many points."""
    kind, content = "svg+xml", b""
    if not any(ax.images for ax in drawn.figure.axes):
        content = encode(drawn.figure, "svg", dpi=_DPI, outlines=True)
    if not 0 < len(content) <= _MOST_BYTES:
        kind, content = "png", encode(drawn.figure, "png", dpi=_DPI)
    width, height = (round(_PIXELS_PER_INCH * inches) for inches in drawn.figure.get_size_inches())
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Embedded(drawn.title, drawn.caption, drawn.alt, source, width, height)
