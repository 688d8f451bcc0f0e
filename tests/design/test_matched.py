"""Matched controls: like what they control in all but one thing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalunet.design import (
    AblateSkip,
    AddNoise,
    Channels,
    Edit,
    Feature,
    Pixels,
    Project,
    Scale,
    Site,
    SkipSteps,
    SparseAutoencoder,
    Window,
    controls,
)
from causalunet.errors import ComponentError, SpecError
from tests.analysis.synthetic import small_anatomy

ANATOMY = small_anatomy()  # six encoder and six decoder blocks, values of 4 x 8 x 8
WINDOW = Window(9, 3)


def test_other_blocks_of_the_same_role() -> None:
    made = controls(Edit("up.2", WINDOW, Scale(0.5), "cond"), ANATOMY)
    assert {item.component for item in made} == {f"up.{i}" for i in (0, 1, 3, 4, 5)}
    assert {(item.window, item.fill, item.branch) for item in made} == {(WINDOW, Scale(0.5), "cond")}


@settings(max_examples=10)
@given(st.integers(0, 1000), st.integers(1, 14))
def test_as_many_other_places_and_each_draw_once(seed: int, n: int) -> None:
    made = controls(AblateSkip(2, WINDOW), ANATOMY, n, seed=seed)
    sets = [frozenset(edit.component for edit in item.edits()) for item in made]
    assert len(made) == len({*sets}) == min(n, math.comb(len(ANATOMY.skips), 2) - 1)
    assert all(len(one) == 2 and one <= {*ANATOMY.skips} for one in sets)
    assert frozenset(("skip.0", "skip.1")) not in sets
    assert made == controls(AblateSkip(2, WINDOW), ANATOMY, n, seed=seed)


def test_other_parts_of_the_same_size() -> None:
    made = controls(Edit(Site("up.2") @ Channels(0, 1), WINDOW), ANATOMY)
    assert {item.view for item in made} == {Channels(*pair) for pair in ((0, 2), (0, 3), (1, 2), (1, 3), (2, 3))}
    boxes = controls(Edit(Site("up.2") @ Pixels(y=(2, 5), x=(0, 4)), WINDOW), ANATOMY, 100)
    assert len(boxes) == 6 * 5 - 1
    assert all(item.view.y[1] - item.view.y[0] == 3 and item.view.x[1] - item.view.x[0] == 4 for item in boxes)
    assert {item.component for item in (*made, *boxes)} == {"up.2"}


def test_other_fills_of_the_same_size() -> None:
    noise = controls(Edit("up.2", WINDOW, AddNoise(0.7, seed=3)), ANATOMY, 5, vary="fill")
    assert {item.fill.sd for item in noise} == {0.7}
    assert len({item.fill.seed for item in noise} - {3}) == 5
    planes = controls(Edit("up.2", WINDOW, Project(np.eye(4)[:2])), ANATOMY, 3, vary="fill")
    assert {np.linalg.matrix_rank(item.fill.directions) for item in planes} == {2}


@pytest.mark.parametrize(
    ("item", "options", "message"),
    [
        (Edit("mid", WINDOW), {}, "has no control: there is no other place"),
        (Edit(Site("up.2") @ Channels(range(4)), WINDOW), {}, "no other part"),
        (Edit("up.2", WINDOW), {"vary": "part"}, "Other parts like"),
        (Edit("up.2", WINDOW), {"vary": "fill"}, "'zero' has no other of the same size"),
        (Edit("up.2", WINDOW), {"vary": "time"}, "it is one of place, part, fill"),
        (Edit("up.2", WINDOW), {"n": 0}, "give how many controls"),
        (SkipSteps(WINDOW), {}, "has no other place"),
    ],
)
def test_what_has_none(item: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        controls(item, ANATOMY, **options)
    with pytest.raises(ComponentError, match=r"up\.9"):
        controls(Edit("up.9", WINDOW), ANATOMY)


def test_features_are_compared_with_others_of_their_dictionary() -> None:
    rng = np.random.default_rng(0)
    shapes = (4, 5), (5,), (5, 4), (4,)
    dictionary = SparseAutoencoder(*(rng.standard_normal(shape) for shape in shapes))
    edit = Edit("up.2", WINDOW, Feature(dictionary, 1, scale=0.5))
    found = controls(edit, ANATOMY, 20, vary="fill")
    assert sorted(one.fill.index for one in found) == [0, 2, 3, 4]
    assert {(one.fill.scale, one.fill.digest) for one in found} == {(0.5, dictionary.digest)}
