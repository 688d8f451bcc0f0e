"""Looking at stored results in a browser or a notebook: figures that answer, of what is chosen. Needs no torch.

The extra ``explore`` brings what it needs: ``pip install 'causalunet[explore]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from causalunet.errors import MissingExtraError
from causalunet.explore.figures import draw

if TYPE_CHECKING:
    from panel.viewable import Viewable

    from causalunet.explore.serving import Served

__all__ = ["draw", "explore", "serve"]


def explore(results: xr.DataTree, *, query: str = "", dark: bool = False) -> Viewable:
    """Show stored results in a notebook, with widgets that choose what is looked at.

    Parameters
    ----------
    results : xarray.DataTree
        As `causalunet.open_results` gives it.
    query : str
        What to look at first, as in the address of the page that ``causalunet explore`` serves.
    dark : bool
        For dark notebooks.

    Returns
    -------
    panel.viewable.Viewable
        As the last line of a cell it is shown.

    Raises
    ------
    MissingExtraError
        Panel is not installed.
    StoreError
        The study has no interventions.
    """
    _need()
    import panel as pn

    from causalunet.explore.app import Explorer
    from causalunet.explore.stored import Stored

    pn.extension()
    return Explorer(Stored(results), query, dark=dark).inside()


def serve(results: xr.DataTree, **options: Any) -> Served:
    """Listen for browsers that want to look at results.

    Parameters
    ----------
    results : xarray.DataTree
        As `causalunet.open_results` gives it.
    **options
        ``address``, by default that of this machine alone; ``port``, by default any that is free; ``token=True`` for a
        token where none is needed; ``loop`` of tornado to answer in.

    Returns
    -------
    Served
        With the address to open as ``url``; ``run`` answers.

    Raises
    ------
    MissingExtraError
        Panel is not installed.
    SpecError
        The address or the port cannot be listened at.
    """
    _need()
    from causalunet.explore import serving

    return serving.serve(results, **options)


def _need() -> None:
    try:
        import panel  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"The explorer needs {error.name}, which is not installed. Install the extra: "
            "pip install 'causalunet[explore]'. causalunet.report draws figures without it."
        ) from error
