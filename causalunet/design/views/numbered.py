"""Views that name places along one dimension by number: channels, attention heads, tokens."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls, hold
from causalunet.design.limits import MOST_SIZE, is_integer, plain_number, several, shown
from causalunet.design.views.base import Axes, Selection, View
from causalunet.dims import CHANNEL, HEAD, QUERY, TOKEN
from causalunet.errors import SpecError

__all__ = ["Channels", "Heads", "Numbered", "Queries", "Tokens", "in_short", "range_of"]

_MOST_LETTERS = 64


@clear_calls
@dataclass(frozen=True, slots=True)
class Numbered(View):
    """Base of views that show numbered places along one dimension; its one field has the name of the view."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which places, from 0."""
        found: tuple[int, ...] = getattr(self, self.name)
        return found

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if not self.numbers:
            raise SpecError(f"{kind}() shows nothing; give {self.name}, such as {kind}(0, 1) or {kind}(range(8)).")
        object.__setattr__(self, self.name, tuple(sorted(set(self.numbers))))

    @property
    def least(self) -> Mapping[str, int]:
        """One more than the last number."""
        return {self.dims[0]: self.numbers[-1] + 1}

    @property
    def words(self) -> str:
        """Such as ``channels 0-3 8``."""
        return in_runs(self.name, self.numbers)

    def selected(self, axes: Axes) -> Mapping[str, Selection]:
        """The places of these numbers."""
        return {self.dims[0]: self.numbers}


@clear_calls
@dataclass(frozen=True, slots=True)
class Channels(Numbered):
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
        hold(self, channels=_numbers("Channels", "channels", more, channels))


@clear_calls
@dataclass(frozen=True, slots=True)
class Heads(Numbered):
    """Some attention heads, of a place that has them: ``Site("up.3.self.heads") @ Heads(2, 5)``.

    Parameters
    ----------
    *heads : int, slice, or iterable of int
        Numbers from 0; a slice needs an end.

    Raises
    ------
    SpecError
        There are none, or one is no integer of at least 0.
    """

    name: ClassVar[str] = "heads"
    dims: ClassVar[tuple[str, ...]] = (HEAD,)
    heads: tuple[int, ...]

    def __init__(self, *more: int | slice | Iterable[int], heads: Iterable[int] = ()) -> None:
        hold(self, heads=_numbers("Heads", "heads", more, heads))


@clear_calls
@dataclass(frozen=True, slots=True)
class Tokens(Numbered):
    """Some tokens of the text, or patches of a transformer: ``Site("text") @ Tokens(3)``, ``Tokens("red")``.

    Parameters
    ----------
    *tokens : int, slice, iterable of int, or str
        Numbers from 0; a slice needs an end. Or words, in upper case or lower: in each row all tokens, at all its
        occurrences, that the model's tokenizer makes of each in the row's own prompt; nothing of rows without one. They
        are found when a study is bound to its model.

    Raises
    ------
    SpecError
        There are none, one is no integer of at least 0 and no word, or there are numbers and words.
    """

    name: ClassVar[str] = "tokens"
    dims: ClassVar[tuple[str, ...]] = (TOKEN,)
    tokens: tuple[int | str, ...]

    def __init__(
        self, *more: int | slice | str | Iterable[int | str], tokens: int | str | Iterable[int | str] = ()
    ) -> None:
        listed = tokens if isinstance(tokens, list | tuple) else (tokens,)
        flat = [one for entry in (*more, *listed) for one in (entry if isinstance(entry, list | tuple) else (entry,))]
        named = any(isinstance(one, str) for one in flat)
        hold(self, tokens=tuple(flat) if named else _numbers("Tokens", "tokens", more, tokens))

    def __post_init__(self) -> None:
        words = [one for one in self.tokens if isinstance(one, str)]
        if words and len(words) < len(self.tokens):
            raise SpecError(f"Tokens got {shown(self.tokens)}; give numbers or words, not both.")
        for word in words:
            if not 0 < len(word) <= _MOST_LETTERS or not word.isprintable() or word != word.strip():
                raise SpecError(
                    f"Tokens got {shown(word)}; a word has 1 to {_MOST_LETTERS} letters, and no space around."
                )
        super(Tokens, self).__post_init__()

    @property
    def named(self) -> tuple[str, ...]:
        """The words, if it is words that are given."""
        return tuple(one for one in self.tokens if isinstance(one, str))

    @property
    def least(self) -> Mapping[str, int]:
        """One more than the last number; of words nothing is known before a prompt is."""
        return {} if self.named else {TOKEN: self.numbers[-1] + 1}

    @property
    def words(self) -> str:
        """Such as ``tokens 0-3 8``, ``tokens red``."""
        return " ".join([self.name, *self.named]) if self.named else in_runs(self.name, self.numbers)

    def selected(self, axes: Axes) -> Mapping[str, Selection]:
        """The places of these numbers; of words none, since each row has its own."""
        return {TOKEN: () if self.named else self.numbers}

    def check(self, axes: Axes, owner: str) -> None:
        """Check that a value has tokens, and those of these numbers."""
        if not self.named or TOKEN not in axes.dims:
            super(Tokens, self).check(axes, owner)


@clear_calls
@dataclass(frozen=True, slots=True)
class Queries(Numbered):
    """Some of what asks in attention, where that is no pixel: ``Site("block.3.self.maps") @ Queries(7)``.

    Parameters
    ----------
    *queries : int, slice, or iterable of int
        Numbers from 0; a slice needs an end. Where queries are pixels, `Pixels` shows a box of them.

    Raises
    ------
    SpecError
        There are none, or one is no integer of at least 0.
    """

    name: ClassVar[str] = "queries"
    dims: ClassVar[tuple[str, ...]] = (QUERY,)
    queries: tuple[int, ...]

    def __init__(self, *more: int | slice | Iterable[int], queries: Iterable[int] = ()) -> None:
        hold(self, queries=_numbers("Queries", "queries", more, queries))


def in_short(numbers: Sequence[int]) -> str:
    """Neighbouring numbers as their first and last."""
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def in_runs(name: str, numbers: Sequence[int]) -> str:
    """A name and numbers, neighbouring ones as their first and last."""
    runs = itertools.groupby(enumerate(numbers), lambda item: item[1] - item[0])
    return " ".join([name, *(in_short([number for _, number in run]) for _, run in runs)])


def _numbers(owner: str, what: str, more: tuple[Any, ...], named: Any) -> tuple[int, ...]:
    if not isinstance(named, Iterable):
        raise SpecError(f"{owner} got {what}={shown(named)}; give a list.")
    return tuple(number for entry in (*more, named) for number in _of_one(owner, what, entry))


def _of_one(owner: str, what: str, given: Any) -> tuple[int, ...]:
    """Numbers of one value that was given for them."""
    if isinstance(given, slice):
        given = range_of(owner, given)
    elif not isinstance(given, Iterable):
        given = (given,)
    # Their order tells nothing, so a set will do.
    found = several(owner, what, list(given) if isinstance(given, Set) else given, str, MOST_SIZE)
    try:
        numbers = tuple(map(operator.index, () if any(isinstance(value, bool) for value in found) else found))
    except TypeError:
        numbers = ()
    if len(numbers) < len(found) or not all(0 <= number < MOST_SIZE for number in numbers):
        raise SpecError(
            f"{owner} got {shown(given)}; {what} are whole numbers from 0 to {MOST_SIZE - 1:,}, counted from the first."
        )
    return numbers


def range_of(owner: str, given: slice) -> range:
    """A slice as a range, which has ends.

    Raises
    ------
    SpecError
        It has none, or they are no whole numbers in order.
    """
    first, end, step = map(plain_number, (given.start, given.stop, given.step))
    first, step = 0 if first is None else first, 1 if step is None else step
    if not all(map(is_integer, (first, end, step))):
        raise SpecError(f"{owner} got {shown(given)}; give whole numbers for its ends, such as slice(0, 8).")
    if not 0 <= first < end <= MOST_SIZE or step < 1:
        raise SpecError(f"{owner} got {shown(given)}; it has to begin at 0 or above, and to end above that.")
    return range(first, end, step)
