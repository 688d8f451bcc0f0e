"""How large the parts of a study may be, and checks that keep to it: specs may come from strangers.

The limits are far above what anybody runs. With them no spec takes long to read, or much memory, whatever it says.
"""

from __future__ import annotations

import itertools
import json
import operator
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Collection, ItemsView, Iterable, KeysView, Set
from numbers import Real
from typing import Any

from causalunet.errors import CausalUNetError, SpecError

__all__ = [
    "COMPONENT_NAME",
    "COORDINATE_NAME",
    "LARGEST",
    "MOST_BINS",
    "MOST_BLOCKS",
    "MOST_DEPTH",
    "MOST_EDITS",
    "MOST_INTERVENTIONS",
    "MOST_LABEL",
    "MOST_PARTS",
    "MOST_PATTERNS",
    "MOST_SAMPLES",
    "MOST_SIZE",
    "MOST_STEPS",
    "MOST_TEXT",
    "check_keys",
    "check_list",
    "check_ordered",
    "check_plain",
    "check_text",
    "checked_integer",
    "integers",
    "is_integer",
    "is_number",
    "plain",
    "plain_number",
    "read_json",
    "several",
    "shown",
]

LARGEST = 2**63 - 1
"""Stored integers are signed and have 64 bits."""

MOST_STEPS = 10_000
"""Of a run, and so of a window."""

MOST_CALLS = 255
"""U-Net calls of a step: how often an edit fired at it is stored in a byte."""

MOST_PARTS = 1_000
"""Windows of an intervention, and parts of a composition."""

MOST_DEPTH = 4
"""Compositions within each other."""

MOST_BINS = 4_096
"""Of a histogram."""

MOST_BLOCKS = 1_000
"""Decoder blocks or skip connections of an ablation."""

MOST_SIZE = 65_536
"""Of a dimension of what a component puts out: channels, or pixels along one side."""

MOST_EDITS = 100_000
"""Edits of a study, each counted once per window, and twice per composition that it is in."""

MOST_INTERVENTIONS = 100_000
"""Of a study."""

MOST_SAMPLES = 1_000_000
"""Of a study: prompts times seeds."""

MOST_PATTERNS = 1_000
"""Component patterns of a record."""

MOST_TEXT = 10_000
"""Characters of a prompt or a name."""

MOST_LABEL = 1_000_000
"""Characters of a label; that of a composition has those of its parts."""

COMPONENT_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,128}")
"""Names of components become names of folders: no other characters, and neither ``.`` nor ``..``."""

COORDINATE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""Names of coordinates and dimensions: keywords of ``sel``."""

_MOST_SHOWN = 200
_MOST_NESTED, _MOST_VALUES, _MOST_BITS = 16, 100_000, 1024


class _Short(reprlib.Repr):
    """Representations that stay short and never fail, whatever the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 120, 120
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 6

    def repr_int(self, x: int, level: int) -> str:
        """Numbers of thousands of digits are too many for Python to write."""
        return repr(x) if x.bit_length() <= 128 else f"<an integer of {x.bit_length()} bits>"


def shown(value: Any) -> str:
    """Show a value in an error message, in at most some 200 characters."""
    text = _Short().repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def plain(text: str) -> str:
    """Spell out control characters, which could move the cursor or rewrite what stands above."""
    return "".join(part if part == "\n" or part.isprintable() else ascii(part)[1:-1] for part in text)


_PLAIN = frozenset((type(None), int, float))


def plain_number(value: Any) -> Any:
    """Make a plain number of one of NumPy's or of another library's; anything else stays what it is."""
    # Studies ask this of every field of every edit: what can be told by type is told without an error to be caught.
    if type(value) in _PLAIN or isinstance(value, bool | str):
        return value
    if not hasattr(type(value), "__index__"):
        return float(value) if isinstance(value, Real) else value
    try:
        return operator.index(value)
    except TypeError:
        return float(value) if isinstance(value, Real) else value


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, which a truth value is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold."""
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def checked_integer(owner: str, name: str, value: Any, *, least: int = 0, most: int = LARGEST) -> int:
    """An integer within bounds, as a plain one.

    Raises
    ------
    SpecError
        It is none.
    """
    number = plain_number(value)
    if not is_integer(number) or not least <= number <= most:
        bound = ", below 2**63" if most == LARGEST else f" and at most {most:,}"
        raise SpecError(f"{owner} got {name}={shown(value)}; give an integer of at least {least}{bound}.")
    return int(number)


def check_text(
    owner: str, name: str, value: Any, most: int = MOST_TEXT, kind: type[CausalUNetError] = SpecError
) -> None:
    """Check that a value is text that can be stored.

    Raises
    ------
    CausalUNetError
        Of the given kind: it is no text, is too long, or has half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise kind(f"{owner} got {name}={shown(value)}; give text.")
    if len(value) > most:
        raise kind(f"{owner} got a {name} of {len(value):,} characters; it can have {most:,}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise kind(f"{owner} got {name}={shown(value)}, which UTF-8 cannot hold ({error.reason}).") from error


def check_list(owner: str, value: Any, most: int) -> None:
    """Check that a value read from JSON is a list that is not too long.

    Raises
    ------
    SpecError
    """
    if not isinstance(value, list):
        raise SpecError(f"{owner} are a list; got {shown(value)}.")
    if len(value) > most:
        raise SpecError(f"{owner} are {len(value):,}; there can be {most:,}.")


def check_keys(owner: str, value: Any, known: Collection[str]) -> None:
    """Check that a value read from JSON is an object that has none but the known fields.

    Raises
    ------
    SpecError
    """
    listing = ", ".join(sorted(known)) or "none"
    if not isinstance(value, dict):
        raise SpecError(f"{owner} has the fields {listing}; got {shown(value)}.")
    if unknown := [name for name in value if name not in known]:
        raise SpecError(f"{owner} has the fields {listing}, and no field {shown(unknown[0])}.")


def read_json(text: str | bytes) -> Any:
    """Read JSON that somebody may have written by hand.

    Raises
    ------
    ValueError, RecursionError
        It is not JSON, or an object has two values under one name, of which one would be lost.
    """
    return json.loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        doubled = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the field {shown(doubled)} stands twice in one object")
    return found


def check_plain(owner: str, value: Any) -> None:
    """Check that a value is of plain JSON types, neither too deep nor too large.

    Raises
    ------
    SpecError
    """
    level, values = [value], 0
    for _ in range(_MOST_NESTED):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list | tuple):
                inner += one
            elif isinstance(one, str):
                check_text(owner, "text", one, MOST_LABEL)
            elif not (one is None or isinstance(one, bool | float) or (is_integer(one) and _is_short(one))):
                raise SpecError(f"{owner} has {shown(one)}, which is not of a plain JSON type.")
        values += len(inner)
        if not inner:
            return
        if values > _MOST_VALUES:
            break
        level = inner
    raise SpecError(f"{owner} is nested deeper than {_MOST_NESTED}, or has more than {_MOST_VALUES:,} values.")


def _is_short(number: int) -> bool:
    return number.bit_length() <= _MOST_BITS


def check_ordered(owner: str, name: str, value: Any) -> None:
    """Check that a value is no set: those are walked in another order by every process.

    Raises
    ------
    SpecError
    """
    if isinstance(value, Set) and not isinstance(value, KeysView | ItemsView):
        raise SpecError(
            f"{owner} got {name}={shown(value)}, a set. Sets have no order, so that the next process would take it for "
            "something else. Give a list, such as sorted(...)."
        )


def several(owner: str, name: str, value: Any, kind: type, most: int) -> tuple[Any, ...]:
    """Make a tuple of what was given, be it one value of a kind or many.

    Raises
    ------
    SpecError
        It is neither, has no order, or there are more than can be.
    """
    if isinstance(value, kind):
        return (value,)
    if not isinstance(value, Iterable):
        raise SpecError(f"{owner} got {name}={shown(value)}; give a list.")
    check_ordered(owner, name, value)
    found = tuple(itertools.islice(value, most + 1))
    if len(found) > most:
        raise SpecError(f"{owner} got more than {most:,} {name}; there can be no more.")
    return found


def integers(owner: str, name: str, values: Any) -> tuple[int, ...]:
    """Make plain integers of NumPy's and Python's; what holds anything else, or is no list, gives none."""
    found = several(owner, name, () if isinstance(values, int) else values, str, MOST_SAMPLES)
    try:
        return () if any(isinstance(value, bool) for value in found) else tuple(map(operator.index, found))
    except TypeError:
        return ()
