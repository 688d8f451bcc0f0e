"""Views that the package brings: the whole, rows of one branch, channels, and boxes of pixels."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from causalunet.calls import clear_calls, hold
from causalunet.design.limits import MOST_SIZE, is_integer, plain_number, several, shown
from causalunet.design.views.base import Axes, Selection, View
from causalunet.dims import CHANNEL, ROW, X, Y
from causalunet.errors import SpecError

__all__ = ["Branch", "Channels", "Pixels", "Rows", "Whole", "check_branch"]

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
class Channels(View):
    """Some channels.

    Parameters
    ----------
    *channels : int, slice, or iterable of int
        Numbers from 0; a slice needs an end. ``Channels(3)``, ``Channels(0, 1)``, ``Channels(range(0, 16, 2))`` and
        ``Channels(slice(8, 16))``.

    Raises
    ------
    SpecError
        There are none, or one is no integer of at least 0.
    """

    name: ClassVar[str] = "channels"
    dims: ClassVar[tuple[str, ...]] = (CHANNEL,)
    channels: tuple[int, ...]

    def __init__(self, *more: int | slice | Iterable[int], channels: Iterable[int] = ()) -> None:
        if not isinstance(channels, Iterable):
            raise SpecError(f"Channels got channels={shown(channels)}; give a list.")
        given = (*more, channels)
        hold(self, channels=tuple(number for entry in given for number in _numbers(entry)))

    def __post_init__(self) -> None:
        if not self.channels:
            raise SpecError("Channels() shows nothing; give channels, such as Channels(0, 1) or Channels(range(8)).")
        object.__setattr__(self, "channels", tuple(sorted(set(self.channels))))

    @property
    def least(self) -> Mapping[str, int]:
        """One more than the last channel."""
        return {CHANNEL: self.channels[-1] + 1}

    @property
    def words(self) -> str:
        """Such as ``channels 0-3 8``."""
        runs = itertools.groupby(enumerate(self.channels), lambda item: item[1] - item[0])
        return " ".join([self.name, *(_run([number for _, number in run]) for _, run in runs)])

    def selected(self, axes: Axes) -> Mapping[str, Selection]:
        """These channels."""
        return {CHANNEL: self.channels}


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
        return " ".join([self.name, *(f"{dim} {_run(range(*span))}" for dim, span in spans if span is not None)])

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


def _run(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _numbers(given: Any) -> tuple[int, ...]:
    """Channels of one value that was given for them."""
    if isinstance(given, slice):
        given = _range("Channels", given)
    elif not isinstance(given, Iterable):
        given = (given,)
    # Their order tells nothing, so a set will do.
    found = several("Channels", "channels", list(given) if isinstance(given, Set) else given, str, MOST_SIZE)
    try:
        numbers = tuple(map(operator.index, () if any(isinstance(value, bool) for value in found) else found))
    except TypeError:
        numbers = ()
    if len(numbers) < len(found) or not all(0 <= number < MOST_SIZE for number in numbers):
        raise SpecError(
            f"Channels got {shown(given)}; channels are whole numbers from 0 to {MOST_SIZE - 1:,}, counted from the "
            "first."
        )
    return numbers


def _range(owner: str, given: slice) -> range:
    first, end, step = map(plain_number, (given.start, given.stop, given.step))
    first, step = 0 if first is None else first, 1 if step is None else step
    if not all(map(is_integer, (first, end, step))):
        raise SpecError(f"{owner} got {shown(given)}; give whole numbers for its ends, such as slice(0, 8).")
    if not 0 <= first < end <= MOST_SIZE or step < 1:
        raise SpecError(f"{owner} got {shown(given)}; it has to begin at 0 or above, and to end above that.")
    return range(first, end, step)


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
    box = _range(f"Pixels({name}=)", given)
    if box.step != 1:
        raise SpecError(f"Pixels got {name}={shown(given)}; a box has no step.")
    return box.start, box.stop
