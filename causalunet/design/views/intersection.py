"""Views crossed with each other, and whether two have something in common."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls, hold
from causalunet.design.limits import MOST_BLOCKS, several, shown
from causalunet.design.views.base import VIEWS, Axes, View, along
from causalunet.design.views.selections import Rows, Whole
from causalunet.dims import ROW
from causalunet.errors import SpecError

__all__ = ["Intersection", "crossed", "parts_of", "views_meet"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Intersection(View):
    """What several views all show, each of dimensions of its own; written ``a @ b``.

    Parameters
    ----------
    parts : iterable of View
        Two or more; their order tells nothing.

    Raises
    ------
    SpecError
        There are fewer, or two address one dimension.
    """

    name: ClassVar[str] = "intersection"
    parts: tuple[View, ...]

    def __init__(self, parts: Iterable[View]) -> None:
        hold(self, parts=parts)

    def __post_init__(self) -> None:
        given = several("An intersection", "parts", self.parts, View, MOST_BLOCKS)
        # Not within each other, so that JSON of any depth is read without going deep.
        parts = tuple(View.from_json(part) if _is_written(part) else part for part in given)
        if len(parts) < 2 or not all(isinstance(part, View) and part.dims for part in parts):
            raise SpecError(f"An intersection needs two views or more that show parts; got {shown(given)}.")
        for number, part in enumerate(parts):
            VIEWS.check_named(part, "name", part.name)
            for other in parts[:number]:
                if doubled := sorted({*part.dims} & {*other.dims}):
                    raise SpecError(
                        f"{other.words} and {part.words} both address {', '.join(doubled)}, and cannot be crossed. "
                        "Give one view that shows what is meant, such as Channels(0, 1)."
                    )
        object.__setattr__(self, "parts", tuple(sorted(parts, key=lambda part: (part.dims != (ROW,), part.dims))))

    @property
    def least(self) -> Mapping[str, int]:
        """That of all parts."""
        return {dim: least for part in self.parts for dim, least in part.least.items()}

    def get(self, value: Any, axes: Axes) -> Any:
        """The part of the part."""
        for part in self.parts:
            value = part.get(value, axes)
            axes = axes._replace(shape=tuple(value.shape))
        return value

    def put(self, value: Any, part: Any, axes: Axes) -> Any:
        """Put from within outwards."""
        return _put_within(value, part, self.parts, axes)

    def mask(self, axes: Axes) -> NDArray[np.bool_]:
        """What all show."""
        return reduce(operator.and_, (part.mask(axes) for part in self.parts))

    def check(self, axes: Axes, owner: str) -> None:
        """Check every part."""
        for part in self.parts:
            part.check(axes, owner)

    @property
    def words(self) -> str:
        """Those of the parts."""
        return " ".join(part.words for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {"parts": [...]}}``."""
        return {"name": self.name, "configuration": {"parts": [part.to_json() for part in self.parts]}}


def crossed(views: Iterable[View]) -> View:
    """What several views all show; what shows everything is left out.

    Parameters
    ----------
    views : iterable of View

    Raises
    ------
    SpecError
        Two address one dimension.
    """
    flat = (part for view in views for part in parts_of(view))
    parts = tuple(dict.fromkeys(part for part in flat if part not in (Whole(), Rows())))
    if len(parts) < 2:
        return parts[0] if parts else Whole()
    return Intersection(parts)


def parts_of(view: View) -> tuple[View, ...]:
    """The views that are crossed, or the one itself."""
    return view.parts if isinstance(view, Intersection) else (view,)


def views_meet(one: View, other: View) -> bool | None:
    """Whether two views have numbers in common, whatever the value; None if that depends on its size.

    Parameters
    ----------
    one, other : View

    Notes
    -----
    Blocks of places meet if they meet along every dimension, so only those that both address can keep them apart.
    """
    one, other = crossed((one,)), crossed((other,))
    if one == other or Whole() in (one, other):
        return True
    known = True
    for part in parts_of(one):
        for rival in parts_of(other):
            apart = _apart(part, rival)
            if apart:
                return False
            known = known and apart is not None
    return True if known else None


def _apart(one: View, other: View) -> bool | None:
    """Whether the places of two views, neither crossed, differ along a dimension; None if that is not known."""
    common = [dim for dim in one.dims if dim in other.dims]
    if not common:
        return False
    if any(dim not in view.least or type(view).mask is not View.mask for view in (one, other) for dim in view.dims):
        return None
    sizes = {ROW: 2}
    for view in (one, other):
        sizes |= {dim: max(least, sizes.get(dim, 1)) for dim, least in view.least.items()}
    axes = Axes(tuple(sizes), tuple(sizes.values()), 1)
    return any(not (_along(one, axes, dim) & _along(other, axes, dim)).any() for dim in common)


def _along(view: View, axes: Axes, dim: str) -> NDArray[np.bool_]:
    """Which places along one dimension a view shows."""
    places = view.selected(axes).get(dim)
    return np.ones(axes.size(dim), bool) if places is None else along(axes.size(dim), places)


def _put_within(value: Any, part: Any, views: Sequence[View], axes: Axes) -> Any:
    view, *others = views
    if not others:
        return view.put(value, part, axes)
    outer = view.get(value, axes)
    inner = _put_within(outer, part, others, axes._replace(shape=tuple(outer.shape)))
    return view.put(value, inner, axes)


def _is_written(part: Any) -> bool:
    return isinstance(part, dict) and part.get("name") != Intersection.name
