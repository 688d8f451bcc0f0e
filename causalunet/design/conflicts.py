"""Edits of one run: whether they go together, and the one way of writing a set of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from causalunet.design.limits import shown
from causalunet.design.windows import Window, Windows, joined
from causalunet.errors import SpecError

if TYPE_CHECKING:
    from causalunet.design.interventions import Edit

__all__ = ["check_conflicts", "edits_to_json"]


class _Span(NamedTuple):
    """Steps ``start ... stop`` of an edit, which is the so manieth of several."""

    start: int
    stop: int
    order: int
    edit: Edit


def check_conflicts(edits: list[Edit]) -> None:
    """Check that edits of one run go together; windows are compared by their ends, so that long ones take no longer.

    Raises
    ------
    SpecError
        One place is edited twice at a step in different ways, or a step that is skipped is edited.
    """
    spans = [_Span(part.start, part.stop, i, edit) for i, edit in enumerate(edits) for part in edit.window.parts]
    spans.sort(key=lambda span: (-span.start, span.order))
    lowest: dict[Any, _Span] = {}
    for span in spans:
        edit, skips = span.edit, span.edit.component == "unet"
        if (other := lowest.get(not skips)) and other.stop <= span.start:
            place = other.edit.component if skips else edit.component
            raise SpecError(
                f"Step {span.start} is skipped, so the edit of {place} there could never fire. "
                "Give the parts windows that do not overlap."
            )
        places: list[Any] = [
            (edit.component, branch) for branch in ("cond", "uncond") if edit.branch in (branch, "both")
        ]
        for place in places:
            if (other := lowest.get(place)) and other.stop <= span.start and not _alike(other.edit, edit):
                first, second = sorted((other, span), key=lambda one: one.order)
                raise SpecError(
                    f"{edit.component} at step {span.start} is edited twice, by {shown(first.edit.label)} and by "
                    f"{shown(second.edit.label)}. Give the parts windows that do not overlap."
                )
        # Of spans that begin higher, the one that reaches lowest overlaps this one if any of them does.
        for place in (skips, *places):
            if place not in lowest or span.stop < lowest[place].stop:
                lowest[place] = span


def _alike(one: Edit, other: Edit) -> bool:
    return (one.fill, one.branch) == (other.fill, other.branch)


def edits_to_json(edits: Iterable[Edit]) -> list[Any]:
    """Write a set of edits so that equal sets are written alike, however they are cut up and ordered.

    Returns
    -------
    list
        Of ``[component, branch, fill, [[start, length], ...]]``, sorted; the windows of alike edits are joined.
    """
    windows: dict[tuple[str, str, str], list[Window | Windows]] = {}
    for edit in edits:
        key = edit.component, edit.branch, json.dumps(edit.fill.to_json(), sort_keys=True)
        windows.setdefault(key, []).append(edit.window)
    return [[*key, [[part.start, part.length] for part in joined(windows[key])]] for key in sorted(windows)]
