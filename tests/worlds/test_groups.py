"""The world of `scenes`: prompts that leave things open, layouts that hold together, and what training never sees."""

from __future__ import annotations

import hashlib
import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from causalunet.errors import PromptError, SpecError
from causalunet.models.vocabulary import SCENES_VOCABULARY
from causalunet.worlds.groups import (
    COLOURS,
    FACTORS,
    LAYOUTS,
    OPEN,
    SPOKEN,
    Codes,
    Description,
    GroupWorld,
    Mention,
    held_out,
)
from causalunet.worlds.painting import IMAGE_SIZE, render

NAMES = list(FACTORS)
seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(LAYOUTS)


def mentions() -> st.SearchStrategy[Mention]:
    values = {name: FACTORS[f"first {name}"] for name in ("count", "texture", "colour", "shape")}
    return st.builds(Mention, **{name: st.none() | st.sampled_from(known) for name, known in values.items()})


descriptions = st.builds(
    Description,
    first=mentions(),
    second=mentions(),
    relation=st.none() | st.sampled_from(["above", "below", "left of", "right of"]),
)


def draw(n: int, seed: int = 0, **options: object) -> tuple[Codes, list[Description]]:
    world, rng = GroupWorld(**options), np.random.default_rng(seed)  # type: ignore[arg-type]
    codes = world.draw(n, rng)
    return codes, world.describe(codes, rng)


def value(codes: Codes, name: str) -> str:
    return FACTORS[name][codes[NAMES.index(name)]]


@given(descriptions)
def test_prompts_round_trip_and_are_read_by_the_model(said: Description) -> None:
    assert Description.parse(said.prompt) == said
    _, mask = SCENES_VOCABULARY([said.prompt])
    assert mask.sum() == len(said.prompt.split())


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "does not describe two groups. Write it as '<group> <relation> <group>'"),
        ("a red circle", "does not describe two groups"),
        ("a red circle under a square", "does not describe two groups"),
        ("a circle above a square above a cross", "does not describe two groups"),
        ("a circle red above a square", "'a circle red' does not describe a group. Write it as '<a, two or some>"),
        ("two circle above a square", "'two circle' does not describe a group"),
        ("a purple circle above a square", "'a purple circle' does not describe a group"),
        ("something and a", "'a' does not describe a group"),
    ],
)
def test_other_prompts_are_told_apart(prompt: str, message: str) -> None:
    with pytest.raises(PromptError, match=re.escape(message)):
        Description.parse(prompt)


def test_values_that_there_are_not_are_refused() -> None:
    with pytest.raises(PromptError, match="shape 'star' is not one of circle"):
        Mention(shape="star")
    with pytest.raises(PromptError, match="relation 'near' is not one of above, left of, below, right of"):
        Description(first=Mention(), second=Mention(), relation="near")
    with pytest.raises(SpecError, match="layout 'odd' is not one of free, aligned, mirrored"):
        GroupWorld(layout="odd")
    with pytest.raises(SpecError, match="drop is a share of mentions, from 0 to 1; got 2"):
        GroupWorld(drop=2)


@given(seeds, layouts, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_what_prompts_say_is_true_of_the_scene(seed: int, layout: str, drop: float) -> None:
    for codes, said in zip(*draw(20, seed, layout=layout, drop=drop), strict=True):
        asked, right = said.right(codes)
        assert right.all()
        spoken = asked != OPEN
        assert not spoken[[NAMES.index(name) for name in NAMES if name not in SPOKEN]].any()
        if drop == 0:
            assert spoken.sum() == len(SPOKEN)
        if drop == 1:
            assert said.prompt == "something and something"


def test_as_many_mentions_are_dropped_as_asked() -> None:
    codes, said = draw(2000, drop=0.3)
    asked = np.stack([one.right(row)[0] for one, row in zip(said, codes, strict=True)])
    share = (asked == OPEN).mean(axis=0)[[NAMES.index(name) for name in SPOKEN]]
    np.testing.assert_allclose(share, 0.3, atol=0.04)
    turned = np.mean([one.relation in ("below", "right of") for one in said if one.relation])
    assert turned == pytest.approx(0.5, abs=0.05)


@given(seeds)
def test_a_prompt_that_says_something_else_is_false(seed: int) -> None:
    codes, said = (part[0] for part in draw(1, seed, drop=0.0))
    for name in SPOKEN:
        other = codes.copy()
        column = NAMES.index(name)
        other[column] = (other[column] + 1) % len(FACTORS[name])
        _, right = said.right(other)
        assert not right[column]
        assert right.sum() == len(NAMES) - 1


def test_without_a_relation_either_group_may_be_meant() -> None:
    codes = draw(1, 3, drop=0.0)[0][0]
    group = {name: [value(codes, f"{which} {name}") for which in ("first", "second")] for name in ("colour", "shape")}
    here, there = (Mention(colour=group["colour"][i], shape=group["shape"][i]) for i in range(2))
    for first, second in itertools.permutations((here, there)):
        assert Description(first=first, second=second).right(codes)[1].all()
    relation = value(codes, "relation")
    assert Description(first=here, second=there, relation=relation).right(codes)[1].all()
    assert not Description(first=there, second=here, relation=relation).right(codes)[1].all()


@given(seeds, layouts, st.booleans())
def test_scenes_are_those_of_the_world(seed: int, layout: str, counts: bool) -> None:
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "centre": "centre"}
    for codes in draw(30, seed, layout=layout, counts=counts)[0]:
        assert value(codes, "first colour") != value(codes, "second colour")
        objects = [value(codes, f"{group} count") for group in ("first", "second")]
        assert objects.count("two") <= int(counts)
        across = {"top", "bottom"} if value(codes, "relation") == "left of" else {"left", "right"}
        here, there = (value(codes, f"{group} place") for group in ("first", "second"))
        assert {here, there} <= across | {"centre"}
        assert value(codes, "position") not in across
        if layout != "free":
            assert there == (here if layout == "aligned" else opposite[here])


def test_everything_occurs() -> None:
    codes = draw(3000)[0]
    for column, known in enumerate(FACTORS.values()):
        assert set(codes[:, column]) == set(range(len(known)))


def blobs(image: np.ndarray, colour: str) -> list[tuple[float, float]]:
    """Centres (y, x) of what has nearly the hue of a colour, from an image in [-1, 1], apart from the world's code."""
    pixels = (image.transpose(1, 2, 0) + 1) / 2
    bright = pixels.max(axis=2, keepdims=True)
    hue = np.abs(pixels / np.maximum(bright, 1e-3) - np.array(COLOURS[colour]) / max(COLOURS[colour])).max(axis=2)
    labels, n = ndimage.label((hue < 0.25) & (bright[..., 0] > 0.5))
    found = [i + 1 for i in range(n) if (labels == i + 1).sum() >= 20]
    return [tuple(np.mean(np.nonzero(labels == i), axis=1)) for i in found]  # type: ignore[misc]


@given(seeds, layouts)
def test_images_show_the_counts_the_relation_and_the_places(seed: int, layout: str) -> None:
    codes, _ = draw(8, seed, layout=layout)
    codes[:, [NAMES.index(f"{group} texture") for group in ("first", "second")]] = 0  # whole objects
    codes[:, [NAMES.index(f"{group} shape") for group in ("first", "second")]] = 1  # that do not touch
    for row, image in zip(codes, render(codes, np.random.default_rng(seed)), strict=True):
        first, second = (blobs(image, value(row, f"{group} colour")) for group in ("first", "second"))
        for group, found in (("first", first), ("second", second)):
            assert len(found) == ("one", "two").index(value(row, f"{group} count")) + 1
        middles = np.mean(first, axis=0), np.mean(second, axis=0)
        along = 0 if value(row, "relation") == "above" else 1
        assert middles[1][along] - middles[0][along] == pytest.approx(12, abs=1.0)
        middle = (IMAGE_SIZE - 1) / 2
        steps = {"left": -1, "top": -1, "centre": 0, "right": 1, "bottom": 1}
        both = (middles[0][along] + middles[1][along]) / 2
        assert both == pytest.approx(middle + 3.5 * steps[value(row, "position")], abs=1.2)
        for group, centre in zip(("first", "second"), middles, strict=True):
            expected = middle + 4.5 * steps[value(row, f"{group} place")]
            assert centre[1 - along] == pytest.approx(expected, abs=1.2)


def test_images_have_range_shape_and_type_and_follow_the_generator() -> None:
    codes = draw(64)[0]
    images = render(codes, np.random.default_rng(0))
    assert images.shape == (64, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert images.dtype == np.float32
    assert np.abs(images).max() <= 1
    assert np.array_equal(images, render(codes, np.random.default_rng(0)))
    assert not np.array_equal(images, render(codes, np.random.default_rng(1)))
    assert render(codes[:0], np.random.default_rng(0)).shape == (0, 3, IMAGE_SIZE, IMAGE_SIZE)


@given(seeds, st.sampled_from([name for name in NAMES if not name.endswith("place") and name != "position"]))
def test_every_factor_is_seen(seed: int, name: str) -> None:
    codes = draw(1, seed)[0]
    other = codes.copy()
    other[:, NAMES.index(name)] = (codes[:, NAMES.index(name)] + 1) % len(FACTORS[name])
    if name == "relation":
        other = np.where(
            np.isin(NAMES, ["position", "first place", "second place"]), FACTORS["position"].index("centre"), other
        )
    images = [render(one, np.random.default_rng(seed))[0] for one in (codes, other)]
    assert (np.abs(images[0] - images[1]).max(axis=0) > 0.2).sum() >= 8


def test_what_is_held_out_never_changes() -> None:
    colours, shapes = FACTORS["first colour"], FACTORS["first shape"]
    pairs = list(itertools.product(range(len(colours)), range(len(shapes)), range(len(colours)), range(len(shapes))))
    codes = np.zeros((len(pairs), len(NAMES)), dtype=np.int64)
    codes[:, [NAMES.index(f"{g} {f}") for g in ("first", "second") for f in ("colour", "shape")]] = pairs
    held = held_out(codes)
    assert held.sum() == 58
    assert hashlib.sha256(np.packbits(held).tobytes()).hexdigest()[:16] == "2e4290da53f7ec96"
    drawn = {
        kept: GroupWorld().draw(2000, np.random.default_rng(0), only_held_out=kept) for kept in (None, True, False)
    }
    assert held_out(drawn[True]).all()
    assert not held_out(drawn[False]).any()
    assert 0.05 < held_out(drawn[None]).mean() < 0.15


def test_prompts_of_a_draw_follow_the_seed() -> None:
    world = GroupWorld()
    assert world.draw_prompts(20, seed=1) == world.draw_prompts(20, seed=1) != world.draw_prompts(20, seed=2)
    for prompt in GroupWorld(drop=0.0).draw_prompts(50, only_held_out=True):
        said = Description.parse(prompt)
        assert held_out(np.maximum(said.readings, 0)).all()
