"""The world of the model ``scenes``: two groups of alike objects in a relation, two or three objects in all.

A prompt such as "two striped red squares above a solid blue circle" never says where in the picture things are, and
may leave out more: "something red left of two circles". So a layout has to be decided, and held together: the objects
of a group are alike and side by side, groups keep their distance and differ in colour, and nothing overlaps.

Scenes are rows of codes, one for every factor. The first group is the one above, or on the left; a prompt may name
the groups in either order.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import PromptError, SpecError

__all__ = [
    "COLOURS",
    "FACTORS",
    "LAYOUTS",
    "OPEN",
    "SPOKEN",
    "Codes",
    "Description",
    "GroupWorld",
    "Mention",
    "column",
    "describe",
    "held_out",
    "offsets",
]

Codes = NDArray[np.int64]
"""Index of every factor's value, (scene, factor) or (factor,), in the order of `FACTORS`."""

OPEN = -1
"""Code of a factor of which a prompt says nothing."""

COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.12, 0.20, 0.95),
    "yellow": (0.95, 0.90, 0.10),
    "magenta": (0.90, 0.10, 0.85),
    "cyan": (0.10, 0.85, 0.90),
}
"""Red, green and blue of every colour, in [0, 1]."""

_SPOKEN_OF_A_GROUP: dict[str, tuple[str, ...]] = {
    "count": ("one", "two"),
    "texture": ("solid", "striped", "checkered"),
    "colour": tuple(COLOURS),
    "shape": ("circle", "square", "triangle", "cross"),
}
_PLACES = ("left", "right", "top", "bottom", "centre")
_GROUPS = ("first", "second")

FACTORS: dict[str, tuple[str, ...]] = {
    "relation": ("above", "left of"),
    "position": _PLACES,
    **{
        f"{group} {factor}": values
        for group in _GROUPS
        for factor, values in (_SPOKEN_OF_A_GROUP | {"place": _PLACES}).items()
    },
}
"""Values of every factor: how the groups stand, where both together are moved along that line, and of each group its
count, looks, and place across that line (left, centre or right for groups above each other, else top, centre or
bottom)."""

_COLUMN = {name: column for column, name in enumerate(FACTORS)}
SPOKEN = tuple(name for name in FACTORS if name not in ("position", "first place", "second place"))
"""Factors that prompts can speak of: all but the places."""

LAYOUTS = ("free", "aligned", "mirrored")
"""How the places of the groups depend on each other: not at all, the same place, opposite places."""

_ACROSS = {"above": ("left", "centre", "right"), "left of": ("top", "centre", "bottom")}
_ALONG = {"above": ("top", "centre", "bottom"), "left of": ("left", "centre", "right")}
_REVERSED = {"above": "below", "left of": "right of"}
_TURNED = {word: relation for relation, word in _REVERSED.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """What a prompt says of a group; None is left open.

    Parameters
    ----------
    count : str, optional
        ``"one"`` or ``"two"``.
    texture, colour, shape : str, optional
        One of the values in `FACTORS`.

    Raises
    ------
    PromptError
        A value is not one of these.

    Examples
    --------
    >>> Mention(count="two", colour="red").text
    'two red shapes'
    >>> Mention(texture="striped", shape="square").text
    'some striped squares'
    >>> Mention(colour="red").text
    'something red'
    """

    count: str | None = None
    texture: str | None = None
    colour: str | None = None
    shape: str | None = None

    def __post_init__(self) -> None:
        for factor, values in _SPOKEN_OF_A_GROUP.items():
            value = getattr(self, factor)
            if value is not None and value not in values:
                raise PromptError(f"{factor} {value!r} is not one of {', '.join(values)}.")

    @property
    def text(self) -> str:
        """The mention in words; "some" is one or two."""
        if self.count is None and self.shape is None:
            words: tuple[str | None, ...] = ("something", self.texture, self.colour)
        else:
            determiner = {"one": "a", "two": "two", None: "some"}[self.count]
            words = (determiner, self.texture, self.colour, _noun(self.shape, plural=self.count != "one"))
        return " ".join(word for word in words if word)

    @classmethod
    def parse(cls, text: str) -> Mention:
        """Read a mention back from `text`.

        Raises
        ------
        PromptError
            The words are not those of a mention, or not in its order.
        """
        found: dict[str, str] = {}
        for word in text.split():
            if word in _MEANT:
                found.update(_MEANT[word])
        mention = cls(**found)
        if mention.text != text:
            raise PromptError(
                f"{text!r} does not describe a group. Write it as '<a, two or some> <texture> <colour> <shape>', such "
                "as 'two striped red squares', where texture and colour may be missing and 'shape' stands for any "
                "shape; or as 'something <texture> <colour>'."
            )
        return mention

    @property
    def codes(self) -> Codes:
        """Codes of count, texture, colour and shape, `OPEN` for what is not said."""
        said = [getattr(self, factor) for factor in _SPOKEN_OF_A_GROUP]
        values = _SPOKEN_OF_A_GROUP.values()
        return np.array([OPEN if word is None else known.index(word) for word, known in zip(said, values, strict=True)])


def _noun(shape: str | None, *, plural: bool) -> str:
    noun = shape or "shape"
    return noun if not plural else noun + ("es" if noun.endswith("s") else "s")


_MEANT: dict[str, dict[str, str]] = {
    "a": {"count": "one"},
    "two": {"count": "two"},
    **{
        value: {factor: value} for factor, values in _SPOKEN_OF_A_GROUP.items() if factor != "count" for value in values
    },
    **{_noun(shape, plural=True): {"shape": shape} for shape in _SPOKEN_OF_A_GROUP["shape"]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a prompt says of a scene.

    Parameters
    ----------
    first, second : Mention
        In the order in which the prompt has them.
    relation : str, optional
        Of the first to the second: ``"above"``, ``"below"``, ``"left of"`` or ``"right of"``. None leaves open how
        the groups stand, and which is which.

    Raises
    ------
    PromptError
        The relation is not one of these.

    Examples
    --------
    >>> said = Description.parse("a circle below two red squares")
    >>> said.second
    Mention(count='two', texture=None, colour='red', shape='square')
    >>> said.prompt
    'a circle below two red squares'
    """

    first: Mention
    second: Mention
    relation: str | None = None

    def __post_init__(self) -> None:
        known = (*_REVERSED, *_TURNED)
        if self.relation is not None and self.relation not in known:
            raise PromptError(f"relation {self.relation!r} is not one of {', '.join(known)}.")

    @property
    def prompt(self) -> str:
        """The description in words."""
        return f"{self.first.text} {self.relation or 'and'} {self.second.text}"

    @classmethod
    def parse(cls, prompt: str) -> Description:
        """Read a description back from `prompt`.

        Raises
        ------
        PromptError
            The prompt does not have that form.
        """
        parts = re.split(r" (above|below|left of|right of|and) ", prompt)
        if len(parts) != 3:
            raise PromptError(
                f"{prompt!r} does not describe two groups. Write it as '<group> <relation> <group>', where the "
                "relation is above, below, left of, right of, or 'and' for any."
            )
        first, relation, second = parts
        return cls(
            first=Mention.parse(first),
            second=Mention.parse(second),
            relation=None if relation == "and" else relation,
        )

    @property
    def readings(self) -> Codes:
        """Codes of the scenes meant, (reading, factor), `OPEN` for what is not said.

        One reading where the relation is said, which tells what group is the first one; else both.
        """
        first, second = self.first.codes, self.second.codes
        if self.relation is None:
            return np.stack([_asked(OPEN, first, second), _asked(OPEN, second, first)])
        relation = _TURNED.get(self.relation, self.relation)
        if relation != self.relation:
            first, second = second, first
        return _asked(FACTORS["relation"].index(relation), first, second)[None]

    def right(self, codes: Codes) -> tuple[Codes, NDArray[np.bool_]]:
        """Compare with a scene, under the reading that fits it best.

        Parameters
        ----------
        codes : ndarray of int, (factor,)

        Returns
        -------
        asked : ndarray of int, (factor,)
            What is asked, `OPEN` for what is not said.
        right : ndarray of bool, (factor,)
            Whether the scene has it; true for what is not said.
        """
        asked = self.readings
        fits = (asked == codes) | (asked == OPEN)
        best = int(fits.sum(axis=1).argmax())
        return asked[best], fits[best]


def _asked(relation: int, first: Codes, second: Codes) -> Codes:
    return np.array([relation, OPEN, *first, OPEN, *second, OPEN])


def describe(codes: Codes, spoken: NDArray[np.bool_], *, turned: bool = False) -> Description:
    """Say some of a scene.

    Parameters
    ----------
    codes : ndarray of int, (factor,)
    spoken : ndarray of bool, (factor of `SPOKEN`,)
        Which factors are mentioned.
    turned : bool
        Name the second group first.
    """
    said = {
        name: FACTORS[name][codes[_COLUMN[name]]] for name, kept in zip(SPOKEN, spoken.tolist(), strict=True) if kept
    }
    first, second = (
        Mention(**{factor: said.get(f"{group} {factor}") for factor in _SPOKEN_OF_A_GROUP}) for group in _GROUPS
    )
    relation = said.get("relation")
    if not turned:
        return Description(first=first, second=second, relation=relation)
    return Description(first=second, second=first, relation=_REVERSED[relation] if relation else None)


def _held_out_pairs() -> NDArray[np.bool_]:
    """By colour and shape of the first and of the second group; one in ten, chosen by a hash."""
    colours, shapes = FACTORS["first colour"], FACTORS["first shape"]
    table = np.zeros((len(colours), len(shapes)) * 2, dtype=bool)
    for index in itertools.product(*map(range, table.shape)):
        words = " ".join(values[code] for values, code in zip((colours, shapes) * 2, index, strict=True))
        table[index] = hashlib.sha256(words.encode()).digest()[0] % 10 == 0
    return table


_HELD_OUT = _held_out_pairs()
_PAIR = [_COLUMN[f"{group} {factor}"] for group in _GROUPS for factor in ("colour", "shape")]


def held_out(codes: Codes) -> NDArray[np.bool_]:
    """Whether the colours and shapes of both groups together were kept from training, (scene,).

    Parameters
    ----------
    codes : ndarray of int, (scene, factor)
    """
    return _HELD_OUT[tuple(codes[:, _PAIR].T)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupWorld:
    """Which scenes there are, and how much prompts say of them.

    Parameters
    ----------
    layout : str
        How the places of the groups depend on each other, one of `LAYOUTS`.
    counts : bool
        Whether a group may have two objects; otherwise there are two objects, one in each group.
    drop : float
        Share of mentions that prompts leave out, each for itself.

    Raises
    ------
    SpecError
        The layout is not one of these, or the share is not within [0, 1].
    """

    layout: str = "free"
    counts: bool = True
    drop: float = 0.3

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise SpecError(f"layout {self.layout!r} is not one of {', '.join(LAYOUTS)}.")
        if not 0 <= self.drop <= 1:
            raise SpecError(f"drop is a share of mentions, from 0 to 1; got {self.drop}.")

    def draw(self, n: int, rng: np.random.Generator, *, only_held_out: bool | None = None) -> Codes:
        """Draw scenes.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
        only_held_out : bool, optional
            True for those that training never saw, False for those that it may see; by default all.

        Returns
        -------
        ndarray of int, (n, factor)
        """
        found = self._draw(n, rng)
        while only_held_out is not None and (wrong := held_out(found) != only_held_out).any():
            found[wrong] = self._draw(int(wrong.sum()), rng)
        return found

    def _draw(self, n: int, rng: np.random.Generator) -> Codes:
        codes = np.stack([rng.integers(len(values), size=n) for values in FACTORS.values()], axis=1)
        first, second = ([_COLUMN[f"{group} {name}"] for name in ("count", "colour", "place")] for group in _GROUPS)
        # One and one, two and one, one and two: at most three objects.
        codes[:, [first[0], second[0]]] = np.array([(0, 0), (1, 0), (0, 1)])[
            rng.integers(3 if self.counts else 1, size=n)
        ]
        other = rng.integers(1, len(COLOURS), size=n)
        codes[:, second[1]] = (codes[:, first[1]] + other) % len(COLOURS)
        along, here, there = rng.integers(3, size=(3, n))
        there = {"free": there, "aligned": here, "mirrored": 2 - here}[self.layout]
        relation = codes[:, _COLUMN["relation"]]
        codes[:, _COLUMN["position"]] = _PLACE_CODES["along"][relation, along]
        codes[:, first[2]] = _PLACE_CODES["across"][relation, here]
        codes[:, second[2]] = _PLACE_CODES["across"][relation, there]
        return codes

    def describe(self, codes: Codes, rng: np.random.Generator) -> list[Description]:
        """Say some of every scene: each mention is dropped with probability ``drop``, either group may come first.

        Parameters
        ----------
        codes : ndarray of int, (scene, factor)
        rng : numpy.random.Generator
        """
        spoken = rng.random((len(codes), len(SPOKEN))) >= self.drop
        turned = rng.random(len(codes)) < 0.5
        return [describe(row, kept, turned=bool(turn)) for row, kept, turn in zip(codes, spoken, turned, strict=True)]

    def draw_prompts(self, n: int, *, seed: int = 0, only_held_out: bool = False) -> list[str]:
        """Draw prompts of scenes.

        Parameters
        ----------
        n : int
        seed : int
        only_held_out : bool
            Of scenes that training never saw.
        """
        rng = np.random.default_rng(seed)
        return [said.prompt for said in self.describe(self.draw(n, rng, only_held_out=only_held_out or None), rng)]


def _place_codes(words: Mapping[str, tuple[str, ...]]) -> Codes:
    return np.array([[_PLACES.index(word) for word in words[relation]] for relation in FACTORS["relation"]])


_PLACE_CODES = {"along": _place_codes(_ALONG), "across": _place_codes(_ACROSS)}


def offsets(codes: Codes, name: str) -> Codes:
    """Where a place lies on its line: -1 for left or top, 0 for the centre, 1 for right or bottom, (scene,)."""
    return np.array([-1, 1, -1, 1, 0])[codes[:, _COLUMN[name]]]


def column(codes: Codes, name: str) -> Codes:
    """Codes of one factor, (scene,)."""
    return codes[:, _COLUMN[name]]
