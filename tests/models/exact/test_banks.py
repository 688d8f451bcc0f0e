"""Banks of images: what prompts stand for, what is refused, and scenes at any size."""

from __future__ import annotations

import numpy as np
import pytest

from causalunet.errors import ModelError, PromptError
from causalunet.models.exact import ImageBank, scene_bank
from causalunet.scenes import Scene, all_scenes, render

LABELS = ("a red circle, dark background", "a red square, light background", "a blue circle, light background")


def bank(**changes: object) -> ImageBank:
    return ImageBank(**{"images": np.zeros((3, 1, 2, 2)), "labels": LABELS, **changes})


def test_a_prompt_stands_for_the_images_that_have_all_its_words() -> None:
    found = bank().matches(["", "red", "circle", "Red circle", LABELS[1], "light background"])
    assert found.tolist() == [
        [True, True, True],
        [True, True, False],
        [True, False, True],
        [True, False, False],
        [False, True, False],
        [False, True, True],
    ]


def test_prompts_that_no_image_has_are_refused() -> None:
    with pytest.raises(PromptError, match=r"labelled with: green\. Labels have: a background blue"):
        bank().matches(["red", "green circle"])
    with pytest.raises(PromptError, match=r"None of the 3 images .* 'blue square'"):
        bank().matches(["blue square"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": np.zeros((3, 2, 2))}, r"shape \(3, 2, 2\)"),
        ({"images": np.zeros((0, 1, 2, 2)), "labels": ()}, "needs images"),
        ({"images": np.full((3, 1, 2, 2), 1.5)}, "go from 1.5 to 1.5"),
        ({"images": np.full((3, 1, 2, 2), np.nan)}, "from -1 to 1"),
        ({"labels": LABELS[:2]}, "2 labels of 3 images"),
        ({"labels": "one text"}, "1 labels of 3 images"),
    ],
)
def test_banks_that_are_none(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        bank(**changes)


def test_the_digest_names_images_and_labels() -> None:
    other = np.zeros((3, 1, 2, 2))
    other[0, 0, 0, 0] = 1e-3
    digests = {bank().digest, bank(images=other).digest, bank(labels=LABELS[::-1]).digest}
    assert len(digests) == 3
    assert bank(images=np.zeros((3, 1, 2, 2), np.float32)).digest == bank().digest


def test_images_are_kept_from_changes() -> None:
    images = np.zeros((3, 1, 2, 2), np.float32)
    made = bank(images=images)
    images += 1
    assert not made.images.any()
    with pytest.raises(ValueError, match="read-only"):
        made.images[0] = 1


def test_scenes_are_those_of_their_prompts() -> None:
    drawn = scene_bank(20, size=32, seed=3)
    scenes = [Scene.parse(label) for label in drawn.labels]
    assert drawn.images == pytest.approx(render(scenes, np.random.default_rng(3)), abs=1e-6)
    assert len(set(drawn.labels)) == 20
    assert set(scene_bank(size=4).labels) == {scene.prompt for scene in all_scenes()}
    red = drawn.matches(["red"])[0]
    assert [scene.colour == "red" for scene in scenes] == red.tolist()


def test_smaller_scenes_are_means_over_areas() -> None:
    whole = scene_bank(5, size=32).images
    blocks = whole.reshape(5, 3, 16, 2, 16, 2).mean((3, 5))
    assert scene_bank(5, size=16).images == pytest.approx(blocks, abs=1e-6)
    for size in (1, 7, 12):  # areas that share pixels: nothing is lost of the mean, and a constant stays one
        assert scene_bank(5, size=size).images.mean((2, 3)) == pytest.approx(whole.mean((2, 3)), abs=1e-6)


@pytest.mark.parametrize("options", [{"images": 0}, {"size": 33}, {"size": 1.5}, {"seed": -1}, {"images": True}])
def test_scenes_that_cannot_be_drawn(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=f"got {next(iter(options))}="):
        scene_bank(**options)
