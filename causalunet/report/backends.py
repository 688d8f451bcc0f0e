"""What draws a figure: matplotlib, or Bokeh for browsers."""

from __future__ import annotations

from typing import Literal, get_args

from causalunet.errors import SpecError

__all__ = ["Backend", "check_backend"]

Backend = Literal["matplotlib", "bokeh"]
"""The library that draws."""


def check_backend(backend: str, *, into: bool) -> None:
    """Check what a figure is asked to be drawn by, before anything is computed for it.

    Parameters
    ----------
    backend : str
    into : bool
        Whether it is to be drawn into a figure or axes of matplotlib's.

    Raises
    ------
    SpecError
        There is no such backend, or it cannot draw into these.
    MissingExtraError
        It is not installed.
    """
    if backend not in get_args(Backend):
        raise SpecError(f"There is no backend {backend!r} for figures; there are 'matplotlib' and 'bokeh'.")
    if backend == "bokeh":
        if into:
            raise SpecError("Bokeh draws a figure of its own: give backend='bokeh' without ax= or figure=.")
        from causalunet.report.interactive.style import need

        need()
