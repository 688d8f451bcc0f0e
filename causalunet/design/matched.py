"""Matched controls: the same edit elsewhere, at another part of its place, or by another fill of the same size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from causalunet.design.anatomy import Anatomy
from causalunet.design.fills import AddNoise, Feature, Fill, Project
from causalunet.design.inner import unnumbered
from causalunet.design.interventions import Composition, Edit, Intervention
from causalunet.design.limits import MOST_INTERVENTIONS, is_integer, shown
from causalunet.design.views import Pixels, View, Whole
from causalunet.design.views.numbered import Numbered
from causalunet.errors import CausalUNetError, SpecError

__all__ = ["controls"]

Vary = Literal["place", "part", "fill"]
_MOST_LISTED = 10_000
"""Choices up to which all are looked through, so that none is missed; of more, some are drawn."""
_TRIES = 100
"""For each control that is drawn."""

_Choice = Mapping[Any, Any]


def controls(
    intervention: Intervention, model: Any, n: int = 20, *, seed: int = 0, vary: Vary | None = None
) -> tuple[Intervention, ...]:
    """Draw interventions that are like one in everything but where it acts, or what it puts there.

    Parameters
    ----------
    intervention : Intervention
    model : DiffusionModel or Anatomy
        It says which other places there are.
    n : int
        How many at the most. There are fewer where there are not so many other choices.
    seed : int
        Of the draw, which is without replacement.
    vary : {"place", "part", "fill"}, optional
        ``place``: other places of the same kind (blocks of the same role, skip connections, inner places of the same
        name) and shape, as many of them. ``part``: other channels, heads, tokens or another box of pixels of the same
        size, at the same place. ``fill``: another seed of `AddNoise`, other directions of `Project`, other
        features of a dictionary. By default parts where the edits have views, and else places. Steps and all else stay.

    Returns
    -------
    tuple of Intervention
        None of them the intervention itself.

    Raises
    ------
    SpecError
        There is no other choice at all, or views or fills are not of those named.
    ComponentError
        The model has no such place.

    Notes
    -----
    Few other places are a limit of the model and not of the draw: with m controls the rank p value of
    `causalunet.analysis.excess` is 1 / (m + 1) at the least, so that under 19 of them none is below 0.05.
    """
    anatomy: Anatomy = model if isinstance(model, Anatomy) else model.anatomy
    if not isinstance(intervention, Intervention):
        raise SpecError(f"controls got {shown(intervention)}; give an intervention.")
    if not is_integer(n) or not 1 <= n <= MOST_INTERVENTIONS:
        raise SpecError(f"controls got n={shown(n)}; give how many controls are wanted, such as 20.")
    placed = intervention.placed(anatomy)
    anatomy.check(placed)
    edits = placed.edits()
    if vary is None:
        vary = "part" if all(type(edit.view) is not Whole for edit in edits) else "place"
    if vary not in get_args(Vary):
        raise SpecError(f"controls got vary={shown(vary)}; it is one of {', '.join(get_args(Vary))}.")
    rng = np.random.default_rng(seed)
    choices, changed = _WAYS[vary](edits, anatomy, rng)
    found: dict[str, Intervention] = {}
    for choice in choices:
        made = _together([changed(edit, choice) for edit in edits])
        if made is not None and made.digest not in {*found, _together(list(edits)).digest} and _fits(made, anatomy):
            found[made.digest] = made
        if len(found) == n:
            break
    if not found:
        raise SpecError(
            f"{shown(intervention.label)} has no control: there is no other {vary} of the same kind and size. Vary "
            "something else: vary='place', 'part' or 'fill'."
        )
    return tuple(found.values())


def _together(edits: Sequence[Edit]) -> Any:
    """Edits as one intervention; None where two of them fall together."""
    if len({edit.digest for edit in edits}) < len(edits):
        return None
    try:
        return edits[0] if len(edits) == 1 else Composition(edits)
    except SpecError:
        return None


def _fits(made: Intervention, anatomy: Anatomy) -> bool:
    try:
        anatomy.check(made)
    except CausalUNetError:  # one edit of it makes another's place dead
        return False
    return True


def _drawn(options: Mapping[Any, Sequence[Any]], rng: np.random.Generator, n: int = 1000) -> Iterator[_Choice]:
    """Choices of one option for each key, in random order: all of them where there are few."""
    keys, lists = list(options), list(options.values())
    if math.prod(map(len, lists)) <= _MOST_LISTED:
        every = list(itertools.product(*lists))
        yield from (dict(zip(keys, every[at], strict=True)) for at in rng.permutation(len(every)))
        return
    for _ in range(_TRIES * n):
        yield {key: one[int(rng.integers(len(one)))] for key, one in options.items()}


def _other_places(edits: Sequence[Edit], anatomy: Anatomy, rng: np.random.Generator) -> Any:
    def kind(place: str) -> Any:
        block = anatomy.by_name.get(place)
        name = block.role if block is not None else "skip" if place in anatomy.skips else unnumbered(place)
        return name, anatomy.axes(place).shape[1:]

    wanted = dict.fromkeys(edit.component for edit in edits)
    if "unet" in wanted:
        raise SpecError("A step that is skipped has no other place; compare it with windows elsewhere in the run.")
    alike = {place: [other for other in anatomy.places if kind(other) == kind(place)] for place in wanted}

    def apart() -> Iterator[_Choice]:
        for choice in _drawn(alike, rng):
            if len({*choice.values()}) == len(choice) and {*choice.values()} != {*wanted}:
                yield choice

    def changed(edit: Edit, choice: _Choice) -> Edit:
        return Edit(choice[edit.component], edit.window, edit.fill, edit.branch, edit.view)

    return apart(), changed


def _other_parts(edits: Sequence[Edit], anatomy: Anatomy, rng: np.random.Generator) -> Any:
    shown_of = dict.fromkeys((edit.component, edit.view) for edit in edits)
    options: dict[Any, Sequence[View]] = {key: _alike(key[1], anatomy.axes(key[0]), rng) for key in shown_of}

    def changed(edit: Edit, choice: _Choice) -> Edit:
        view = choice[edit.component, edit.view]
        return Edit(edit.component, edit.window, edit.fill, edit.branch, view)

    return _drawn(options, rng), changed


def _alike(view: View, axes: Any, rng: np.random.Generator) -> list[View]:
    """Views of the same size, without the one given; some of them where there are many."""
    if isinstance(view, Numbered):
        size, many = axes.size(view.dims[0]), len(view.numbers)
        if math.comb(size, many) <= _MOST_LISTED:
            sets: Any = itertools.combinations(range(size), many)
        else:
            sets = (tuple(sorted(rng.choice(size, many, replace=False).tolist())) for _ in range(_MOST_LISTED))
        return [type(view)(*numbers) for numbers in dict.fromkeys(sets) if numbers != view.numbers]
    if isinstance(view, Pixels):
        spans = [
            [None] if span is None else [(at, at + span[1] - span[0]) for at in range(size - span[1] + span[0] + 1)]
            for span, size in ((view.y, axes.size("y")), (view.x, axes.size("x")))
        ]
        return [box for y, x in itertools.product(*spans) if (box := Pixels(y, x)) != view]
    raise SpecError(
        f"Other parts like {view.words} are not known; views that have such are Channels, Heads, Tokens and Pixels. "
        "Take vary='place'."
    )


def _other_fills(edits: Sequence[Edit], anatomy: Anatomy, rng: np.random.Generator) -> Any:
    fills = dict.fromkeys(edit.fill for edit in edits)

    def choices() -> Iterator[_Choice]:
        for _ in range(_TRIES**2):  # a dictionary has so many features and no more
            yield {fill: _of_the_same_size(fill, rng) for fill in fills}

    def changed(edit: Edit, choice: _Choice) -> Edit:
        return Edit(edit.component, edit.window, choice[edit.fill], edit.branch, edit.view)

    return choices(), changed


def _of_the_same_size(fill: Fill, rng: np.random.Generator) -> Fill:
    if isinstance(fill, AddNoise):
        return replace(fill, seed=int(rng.integers(2**62)))
    if isinstance(fill, Project):
        return Project(rng.standard_normal(np.shape(fill.directions)), fill.keep)
    if isinstance(fill, Feature) and fill.dictionary is not None:
        index = int(rng.integers(fill.dictionary.latents))
        return Feature(fill.dictionary, index, value=fill.value, scale=fill.scale)
    raise SpecError(
        f"The fill {fill.name!r} has no other of the same size; AddNoise, Project and Feature have. Vary the place."
    )


_WAYS: dict[str, Callable[..., Any]] = {"place": _other_places, "part": _other_parts, "fill": _other_fills}
