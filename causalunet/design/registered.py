"""Which kinds of intervention, fills, views and samplers a written study takes for granted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from causalunet.design.fills import FILLS
from causalunet.design.guidance import GUIDANCES
from causalunet.design.interventions import KINDS
from causalunet.design.limits import MOST_DEPTH, shown
from causalunet.design.outcomes import OUTCOMES
from causalunet.design.samplers import SAMPLERS, Sampler
from causalunet.design.spacings import SPACINGS
from causalunet.design.starts import STARTS
from causalunet.design.views import VIEWS
from causalunet.errors import CausalUNetError, PluginError
from causalunet.registry import Registry, is_own

__all__ = ["plugins", "unknown_outcomes", "unknown_sampler", "unknown_start", "unregistered"]


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


def unknown_sampler(value: Any) -> list[str]:
    """Name what is not known in this process of a study's sampler: its class, guidance, spacing, or what it needs."""
    configuration = value.get("configuration") if isinstance(value, dict) else None
    given = configuration if isinstance(configuration, dict) else {}
    unknown = []
    asked: tuple[tuple[str, Any, Registry[Any]], ...] = (
        ("sampler", value, SAMPLERS),
        ("guidance", given.get("guidance"), GUIDANCES),
        ("spacing", given.get("spacing"), SPACINGS),
    )
    for what, said, registry in asked:
        name = said.get("name") if isinstance(said, dict) else None
        if isinstance(name, str):
            told, cls = _found(what, name, registry)
            unknown += [told] if cls is None else []
    if not unknown and given:
        with suppress(CausalUNetError, TypeError):  # of what is no sampler, which reading it tells
            unknown += [lacking] if (lacking := Sampler.from_json(value).missing) else []
    return unknown


def unknown_outcomes(value: Any) -> list[str]:
    """Name the outcomes of a study's JSON whose names no class of this process has."""
    names = [one.get("name") for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    found = [_found("outcome", name, OUTCOMES) for name in names if isinstance(name, str)]
    return [told for told, cls in found if cls is None]


def unknown_start(value: Any) -> list[str]:
    """Name a start's JSON if no class of this process has that name."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return []
    told, cls = _found("start", name, STARTS)
    return [told] if cls is None else []


def plugins(value: Any) -> Iterator[str]:
    """Names in an intervention's JSON that are not the package's own, whether their class is known or not."""
    for what, cls in _named(value):
        if cls is None or not is_own(cls):
            yield what


def _named(value: Any, depth: int = 0) -> Iterator[tuple[str, type | None]]:
    """Every kind, fill and view in an intervention's JSON, with its class in this process."""
    configuration = value.get("configuration") if isinstance(value, dict) else None
    if not isinstance(configuration, dict) or depth > MOST_DEPTH:
        return
    views = configuration.get("view"), *_parts(configuration.get("view"))
    named: list[tuple[str, Any, Registry[Any]]] = [("kind", value, KINDS), ("fill", configuration.get("fill"), FILLS)]
    for what, part, registry in (*named, *(("view", view, VIEWS) for view in views)):
        name = part.get("name") if isinstance(part, dict) else None
        if isinstance(name, str):
            yield _found(what, name, registry)
    for part in _parts(value):
        yield from _named(part, depth + 1)


def _parts(value: Any) -> list[Any]:
    configuration = value.get("configuration") if isinstance(value, dict) else None
    parts = configuration.get("parts") if isinstance(configuration, dict) else None
    return parts if isinstance(parts, list) else []


def _found(what: str, name: str, registry: Registry[Any]) -> tuple[str, type | None]:
    told = f"the {what} {shown(name)}"
    try:
        return told, registry.get(name)
    except PluginError as error:
        return f"{told} ({error!s:.300})", None
