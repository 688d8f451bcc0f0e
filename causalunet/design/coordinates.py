"""What results can be selected by, checked where a kind of intervention says it in its own way."""

from __future__ import annotations

from typing import Any

from causalunet.design.interventions import Composition, Intervention
from causalunet.design.limits import LARGEST, is_integer, shown
from causalunet.errors import SpecError
from causalunet.registry import is_own

__all__ = ["check_coordinates"]

_COUNTS = ("top", "bottom", "start", "length", "cuts", "relax")


def check_coordinates(item: Intervention) -> None:
    """Check that a store can hold the coordinates of an intervention.

    Those of the package's own kinds are not looked at: studies have thousands.

    Raises
    ------
    SpecError
        They are not those that every intervention has, or not of their types.
    """
    if isinstance(item, Composition):
        for part in item.parts:
            check_coordinates(part)
    if is_own(type(item)):
        return
    found: Any = item.coordinates()
    if not isinstance(found, dict):
        raise SpecError(f"coordinates() of {type(item).__name__} gave {shown(found)}, which is no dict of coordinates.")
    own = {"kind": item.kind, "label": item.label, "digest": item.digest}
    wrong = [name for name in own if found.get(name) != own[name]]
    wrong += [name for name in _COUNTS if not _is_count(found.get(name))]
    wrong += [str(name) for name in found if name not in (*own, *_COUNTS)]
    if wrong:
        raise SpecError(
            f"{type(item).__name__} has the coordinates {shown(found)}, and a store cannot hold {', '.join(wrong)} so. "
            f"coordinates() gives {', '.join(own)} of the intervention itself, and integers of at least 0 for "
            f"{', '.join(_COUNTS)}; nothing else."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and is_integer(value) and 0 <= value <= LARGEST
