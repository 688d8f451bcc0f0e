"""Views that the package brings: the whole, rows of one branch, and boxes of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from causalunet.calls import clear_calls, hold
from causalunet.design.limits import shown
from causalunet.design.views.base import Axes, Selection, View
from causalunet.design.views.numbered import in_short, range_of
from causalunet.dims import ROW, X, Y
from causalunet.errors import SpecError

__all__ = ["Branch", "Pixels", "Rows", "Whole", "check_branch"]

Branch = Literal["both", "cond", "uncond"]
"""Which half of the guided batch is intervened on."""


@clear_calls
@dataclass(frozen=True, slots=True)
class Whole(View):
    """The whole value."""

    name: ClassVar[str] = "whole"

    def selected(self, axes: Axes) -> Mapping[str, Selection]:
        """Nothing is left out."""
        return {}


@clear_calls
@dataclass(frozen=True, slots=True)
class Rows(View):
    """The rows of one half of the guided batch; without guidance all rows are conditional.

    Parameters
    ----------
    branch : {"both", "cond", "uncond"}
    """

    name: ClassVar[str] = "rows"
    dims: ClassVar[tuple[str, ...]] = (ROW,)
    branch: Branch = "both"

    def __post_init__(self) -> None:
        check_branch(self.branch)

    @property
    def least(self) -> Mapping[str, int]:
        """There is a row."""
        return {ROW: 1}

    def selected(self, axes: Axes) -> Mapping[str, Selection]:
        """Conditional rows come first."""
        halves = {"cond": slice(0, axes.cond_rows), "uncond": slice(axes.cond_rows, axes.shape[0])}
        return {ROW: halves[self.branch]} if self.branch in halves else {}


@clear_calls
@dataclass(frozen=True, slots=True)
class Pixels(View):
    """A box of pixels, in those of the component's own resolution.

    Parameters
    ----------
    y, x : (int, int), range or slice, optional
        First row of pixels and the one after the last, counted from the top; columns likewise, from the left. All where
        it is left out.

    Raises
    ------
    SpecError
        Neither is given, or one has no pixels or a step.
    """

    name: ClassVar[str] = "pixels"
    dims: ClassVar[tuple[str, ...]] = (Y, X)
    y: tuple[int, int] | None = None
    x: tuple[int, int] | None = None

    def __init__(
        self, y: tuple[int, int] | range | slice | None = None, x: tuple[int, int] | range | slice | None = None
    ) -> None:
        hold(self, y=y, x=x)

    def __post_init__(self) -> None:
        for name in ("y", "x"):
            object.__setattr__(self, name, _span(name, getattr(self, name)))
        if self.y is None and self.x is None:
            raise SpecError("Pixels() names no box; give y=(first, end), x=(first, end) or both. All of it is Whole().")

    @property
    def words(self) -> str:
        """Such as ``pixels y 0-3``."""
        spans = ((Y, self.y), (X, self.x))
        return " ".join([self.name, *(f"{dim} {in_short(range(*span))}" for dim, span in spans if span is not None)])

    @property
    def least(self) -> Mapping[str, int]:
        """The ends of the box."""
        return {Y: self.y[1] if self.y else 1, X: self.x[1] if self.x else 1}

    def selected(self, axes: Axes) -> Mapping[str, Selection]:
        """The box."""
        return {dim: slice(*span) for dim, span in ((Y, self.y), (X, self.x)) if span is not None}


def check_branch(branch: Any) -> None:
    """Raise `SpecError` if a value is none of the branches."""
    if not isinstance(branch, str) or branch not in ("both", "cond", "uncond"):
        raise SpecError(f"branch {shown(branch)} is not one of 'both', 'cond', 'uncond'.")


def _span(name: str, given: Any) -> tuple[int, int] | None:
    """First place and the one after the last, from any way to give them."""
    if given is None:
        return None
    if isinstance(given, range):
        given = slice(given.start, given.stop, given.step)
    if isinstance(given, list | tuple) and len(given) == 2 and None not in given:
        given = slice(*given)
    if not isinstance(given, slice):
        raise SpecError(f"Pixels got {name}={shown(given)}; give (first, end), such as (0, 8).")
    box = range_of(f"Pixels({name}=)", given)
    if box.step != 1:
        raise SpecError(f"Pixels got {name}={shown(given)}; a box has no step.")
    return box.start, box.stop
