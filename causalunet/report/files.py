"""Writing figures to files."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from causalunet.errors import SpecError

__all__ = ["save"]

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
    path = Path(path)
    ending, known = path.suffix.removeprefix(".").lower(), figure.canvas.get_supported_filetypes()
    if ending not in known:
        raise SpecError(f"{path} does not end in a known format of figures; known are {', '.join(sorted(known))}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Text stays text: it can be searched and edited in the file.
    with mpl.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "causalunet"}):
        figure.savefig(path, dpi=dpi, metadata=_UNDATED.get(ending))
    return path
