"""What of a model can be edited, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causalunet.design.anatomy import Anatomy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["sites"]


def sites(model: Any) -> pd.DataFrame:
    """All that can be edited in a model: components, skip connections, and places inside components.

    A site is one of these and a view, ``Site("up.3.self.heads") @ Heads(2)``; the dimensions say which views fit.

    Parameters
    ----------
    model : DiffusionModel or Anatomy

    Returns
    -------
    pandas.DataFrame
        By the name of the place: ``what`` (component, skip connection, or the kind of the inner place, such as
        ``*.self.heads``), ``component`` in which it is, or into which a skip connection leads, and its ``dims`` and
        ``sizes``.
    """
    import pandas as pd

    from causalunet.design.inner import unnumbered

    anatomy: Anatomy = model if isinstance(model, Anatomy) else model.anatomy
    kinds = dict.fromkeys(anatomy.by_name, "component") | dict.fromkeys(anatomy.skips, "skip connection")
    rows = {
        place: {
            "what": kinds.get(place) or unnumbered(place),
            "component": anatomy.owner(place),
            "dims": ", ".join(anatomy.described(place).dims),
            "sizes": " x ".join(map(str, anatomy.described(place).shape)),
        }
        for place in anatomy.places
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("place")
