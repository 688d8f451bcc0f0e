"""Edits of one run: whether they go together, and the one way of writing a set of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from causalunet.design.digests import written
from causalunet.design.limits import shown
from causalunet.design.stages import stages_apart
from causalunet.design.views import Whole, views_meet
from causalunet.design.windows import Window, Windows, joined, written_window
from causalunet.errors import SpecError

if TYPE_CHECKING:
    from causalunet.design.interventions import Edit

__all__ = ["check_conflicts", "edits_to_json", "twice"]


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
    parts: dict[tuple[str, str], dict[Any, _Span]] = {}
    for span in spans:
        edit, skips = span.edit, span.edit.component == "unet"
        if (other := lowest.get(not skips)) and other.stop <= span.start:
            place = other.edit.component if skips else edit.component
            raise SpecError(
                f"Step {span.start} is skipped, so the edit of {place} there could never fire. "
                "Give the parts windows that do not overlap."
            )
        places: list[tuple[str, str]] = [
            (edit.component, branch) for branch in ("cond", "uncond") if edit.branch in (branch, "both")
        ]
        for where in places:
            for other in parts.get(where, {}).values():
                if other.stop <= span.start and not _together(other.edit, edit):
                    first, second = sorted((other, span), key=lambda one: one.order)
                    raise SpecError(twice(first.edit, second.edit, span.start))
        # Of spans that begin higher, the one that reaches lowest overlaps this one if any of them does.
        _keep_lowest(lowest, skips, span)
        for where in places:
            _keep_lowest(parts.setdefault(where, {}), (edit.view, edit.window.stage), span)


def _keep_lowest(lowest: dict[Any, _Span], key: object, span: _Span) -> None:
    if key not in lowest or span.stop < lowest[key].stop:
        lowest[key] = span


def _together(one: Edit, other: Edit) -> bool:
    """Whether two edits of one place and step can be made; views of which it is not known yet are told apart later."""
    if one.view is other.view or one.view == other.view:
        together = (one.fill, one.branch) == (other.fill, other.branch)
    else:
        together = not views_meet(one.view, other.view)
    return together or stages_apart(one, other)


def twice(one: Edit, other: Edit, step: int) -> str:
    """Say that two edits replace the same numbers."""
    return (
        f"{one.component} at step {step} is edited twice, by {shown(one.label)} and by {shown(other.label)}. Give the "
        "parts windows that do not overlap, or views that have nothing in common."
    )


def edits_to_json(edits: Iterable[Edit]) -> list[Any]:
    """Write a set of edits so that equal sets are written alike, however they are cut up and ordered.

    Returns
    -------
    list
        Of ``[component, branch, fill, [[start, length], ...]]``, sorted; the windows of alike edits are joined, and
        have their stage besides, if any. An edit of a part has its view at the end.
    """
    windows: dict[tuple[str, str, str, str, int | None], list[Window | Windows]] = {}
    for edit in edits:
        view = written(edit.view.to_json()) if type(edit.view) is not Whole else ""
        key = edit.component, edit.branch, written(edit.fill.to_json()), view, edit.window.stage
        windows.setdefault(key, []).append(edit.window)
    spans = {key: [list(written_window(part, key[4])) for part in joined(parts)] for key, parts in windows.items()}
    # All calls before any one of them.
    ordered = sorted(windows, key=lambda key: (*key[:4], -1 if key[4] is None else key[4]))
    return [[*key[:3], spans[key], *filter(None, key[3:4])] for key in ordered]
