"""Which kinds of intervention and which fills a written study takes for granted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from causalunet.design import fills, interventions
from causalunet.design.limits import MOST_DEPTH, shown

__all__ = ["unregistered"]


def unregistered(value: Any, depth: int = 0) -> Iterator[str]:
    """Names in an intervention's JSON that no class of this process has.

    Parameters
    ----------
    value : JSON value
        As `Intervention.to_json` writes it; what is something else names nothing.

    Yields
    ------
    str
        Such as ``the kind 'mine'`` and ``the fill 'noise'``.
    """
    configuration = value.get("configuration") if isinstance(value, dict) else None
    if not isinstance(configuration, dict) or depth > MOST_DEPTH:
        return
    fill = configuration.get("fill")
    fill_name = fill.get("name") if isinstance(fill, dict) else None
    names = ("kind", value.get("name"), interventions._REGISTRY), ("fill", fill_name, fills._REGISTRY)
    for what, name, known in names:
        if isinstance(name, str) and name not in known:
            yield f"the {what} {shown(name)}"
    parts = configuration.get("parts")
    for part in parts if isinstance(parts, list) else []:
        yield from unregistered(part, depth + 1)
