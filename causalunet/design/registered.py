"""Which kinds of intervention and which fills a written study takes for granted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from causalunet.design import fills, interventions
from causalunet.design.limits import MOST_DEPTH, shown

__all__ = ["plugins", "unregistered"]

_PACKAGE = "causalunet"


def unregistered(value: Any) -> Iterator[str]:
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
    for what, cls in _named(value):
        if cls is None:
            yield what


def plugins(value: Any) -> Iterator[str]:
    """Names in an intervention's JSON that are not the package's own, whether their class is known or not."""
    for what, cls in _named(value):
        if cls is None or cls.__module__.partition(".")[0] != _PACKAGE:
            yield what


def _named(value: Any, depth: int = 0) -> Iterator[tuple[str, type | None]]:
    """Every kind and fill in an intervention's JSON, with its class in this process."""
    configuration = value.get("configuration") if isinstance(value, dict) else None
    if not isinstance(configuration, dict) or depth > MOST_DEPTH:
        return
    fill = configuration.get("fill")
    fill_name = fill.get("name") if isinstance(fill, dict) else None
    kinds: dict[str, type] = {**interventions._REGISTRY}
    for what, name, known in (("kind", value.get("name"), kinds), ("fill", fill_name, fills._REGISTRY)):
        if isinstance(name, str):
            yield f"the {what} {shown(name)}", known.get(name)
    parts = configuration.get("parts")
    for part in parts if isinstance(parts, list) else []:
        yield from _named(part, depth + 1)
