"""Writing figures to files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from causalunet.errors import SpecError
from causalunet.paths import given_path

__all__ = ["encode", "save"]

_UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}


def save(figure: Figure, path: str | Path, *, dpi: int = 300) -> Path:
    """Write a figure; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        Its ending says the format, such as ``.pdf``, ``.svg`` or ``.png``. Folders are made.
    dpi : int
        Dots per inch of formats made of pixels.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SpecError
        The ending is not that of a known format.
    """
    path = given_path(path)
    ending, known = path.suffix.removeprefix(".").lower(), figure.canvas.get_supported_filetypes()
    if ending not in known:
        raise SpecError(f"{path} does not end in a known format of figures; known are {', '.join(sorted(known))}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(figure, ending, dpi=dpi))
    return path


def encode(figure: Figure, ending: str, *, dpi: int, outlines: bool = False) -> bytes:
    """Make the bytes of a figure's file; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    ending : str
        Format, such as "svg" or "png".
    dpi : int
        Dots per inch of formats made of pixels.
    outlines : bool
        Letters of an SVG as outlines, which look the same wherever they are shown, instead of text, which can be
        searched and edited.
    """
    buffer = io.BytesIO()
    fonts: Any = {"pdf.fonttype": 42, "svg.fonttype": "path" if outlines else "none", "svg.hashsalt": "causalunet"}
    with mpl.rc_context(fonts):
        figure.savefig(buffer, format=ending, dpi=dpi, metadata=_UNDATED.get(ending))
    return buffer.getvalue()
