"""The world of the embedded model: prompts, images, independent factors, and what training never sees."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from causalunet.errors import PromptError
from causalunet.scenes import FACTORS, IMAGE_SIZE, Scene, all_scenes, draw_scenes, held_out, render

SCENES = all_scenes()

scenes = st.sampled_from(SCENES)
seeds = st.integers(0, 2**32 - 1)


def draw(scene: Scene, seed: int) -> NDArray[np.float32]:
    return render([scene], np.random.default_rng(seed))[0]


def silhouette(scene: Scene, seed: int) -> NDArray[np.bool_]:
    """Where the shape is, of any part: what the dark and the light background show differently is background."""
    dark, light = (draw(replace(scene, background=value, texture="solid"), seed) for value in ("dark", "light"))
    return (np.abs(dark - light) < 0.5).any(axis=0)


def test_there_are_as_many_scenes_as_combinations() -> None:
    assert len(SCENES) == len(set(SCENES)) == np.prod([len(values) for values in FACTORS.values()]) == 1080


def test_prompts_round_trip() -> None:
    assert [Scene.parse(scene.prompt) for scene in SCENES] == list(SCENES)
    assert len({scene.prompt for scene in SCENES}) == len(SCENES)


def test_codes_name_the_values() -> None:
    for scene in SCENES:
        assert tuple(FACTORS[name][code] for name, code in zip(FACTORS, scene.codes, strict=True)) == (
            scene.texture,
            scene.colour,
            scene.shape,
            scene.position,
            scene.background,
        )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "does not describe a whole scene. Write it as 'a <texture> <colour> <shape> <position>"),
        ("a red circle", "does not describe a whole scene"),
        ("a solid red circle on the left", "does not describe a whole scene"),
        ("a solid red circle on the left, dark", "does not describe a whole scene"),
        ("one solid red circle on the left, dark background", "does not describe a whole scene"),
        ("a solid red circle on the left, pink background", "background 'pink' is not one of dark, light, gradient"),
        ("a solid red star on the left, dark background", "shape 'star' is not one of circle, square, triangle, cross"),
        ("a red solid circle on the left, dark background", "texture 'red' is not one of solid, striped, checkered"),
        ("a solid red circle under a tree, dark background", "position 'under a tree' is not one of on the left, "),
    ],
)
def test_other_prompts_are_told_apart(prompt: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Scene.parse(prompt)


def test_images_have_range_shape_and_type() -> None:
    images = render(SCENES, np.random.default_rng(0))
    assert images.shape == (1080, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert images.dtype == np.float32
    assert images.min() >= -1
    assert images.max() <= 1
    assert images.reshape(1080, -1).std(axis=1).min() > 0.1


@given(scenes, seeds)
def test_images_depend_on_scene_and_seed_only(scene: Scene, seed: int) -> None:
    assert np.array_equal(draw(scene, seed), draw(scene, seed))
    assert not np.array_equal(draw(scene, seed), draw(scene, seed + 1))


@given(scenes, seeds, st.sampled_from(list(FACTORS)), st.data())
def test_every_factor_is_seen(scene: Scene, seed: int, factor: str, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from([value for value in FACTORS[factor] if value != getattr(scene, factor)]))
    difference = np.abs(draw(scene, seed) - draw(replace(scene, **{factor: value}), seed)).max(axis=0)
    assert (difference > 0.2).sum() >= 20


@given(scenes, seeds, st.sampled_from(["colour", "texture"]), st.data())
def test_colour_and_texture_leave_the_background(scene: Scene, seed: int, factor: str, data: st.DataObject) -> None:
    other = replace(scene, **{factor: data.draw(st.sampled_from(FACTORS[factor]))})
    changed = (draw(scene, seed) != draw(other, seed)).any(axis=0)
    assert not (changed & ~silhouette(scene, seed) & ~_outline(scene, seed)).any()


@given(scenes, seeds, st.data())
def test_the_background_leaves_the_inside_of_the_shape(scene: Scene, seed: int, data: st.DataObject) -> None:
    other = replace(scene, background=data.draw(st.sampled_from(FACTORS["background"])))
    changed = (draw(scene, seed) != draw(other, seed)).any(axis=0)
    assert not (changed & silhouette(scene, seed) & ~_outline(scene, seed)).any()


@given(scenes, seeds)
def test_the_position_moves_the_shape(scene: Scene, seed: int) -> None:
    centres = {}
    for position in FACTORS["position"]:
        rows, columns = np.nonzero(silhouette(replace(scene, position=position), seed))
        centres[position] = rows.mean(), columns.mean()
    middle = centres["in the centre"]
    for position, row, column in [("on the left", 0, -7), ("on the right", 0, 7), ("at the top", -7, 0)]:
        assert centres[position] == pytest.approx((middle[0] + row, middle[1] + column), abs=0.75)
    assert centres["at the bottom"] == pytest.approx((middle[0] + 7, middle[1]), abs=0.75)


def _outline(scene: Scene, seed: int) -> NDArray[np.bool_]:
    """Pixels that shape and background share."""
    dark, light = (draw(replace(scene, background=value, texture="solid"), seed) for value in ("dark", "light"))
    difference = np.abs(dark - light).max(axis=0)
    return (difference > 1e-6) & (difference < difference.max() - 1e-6)


def test_what_is_held_out_never_changes() -> None:
    held = [scene.prompt for scene in SCENES if held_out(scene)]
    assert len(held) == 111
    assert hashlib.sha256("\n".join(held).encode()).hexdigest()[:16] == "a922324421e07f2c"
    for factor, values in FACTORS.items():
        seen = {getattr(scene, factor) for scene in SCENES if not held_out(scene)}
        assert seen == set(values), "every value alone is seen in training"


@settings(max_examples=5)
@given(st.integers(1, 1080), seeds)
def test_drawn_scenes_do_not_repeat(n: int, seed: int) -> None:
    drawn = draw_scenes(n, seed=seed)
    assert len(drawn) == len(set(drawn)) == n
    assert drawn == draw_scenes(n, seed=seed)


def test_draws_follow_the_seed_and_go_on_after_the_last() -> None:
    assert draw_scenes(50, seed=0) != draw_scenes(50, seed=1)
    drawn = draw_scenes(250, only_held_out=True)
    assert all(held_out(scene) for scene in drawn)
    assert len(set(drawn[:111])) == len(set(drawn[111:222])) == 111
