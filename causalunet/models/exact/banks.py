"""Finite sets of labelled images: the data of exact models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from causalunet.design.limits import is_integer, shown
from causalunet.errors import ModelError, PromptError
from causalunet.scenes import IMAGE_SIZE, all_scenes, draw_scenes, render

__all__ = ["ImageBank", "scene_bank"]

_MOST_WORDS = 40
"""Named by an error message."""


@dataclass(frozen=True, eq=False)
class ImageBank:
    """Images with a label each. A prompt stands for the images whose labels have all its words.

    So ``"red"``, ``"red circle"`` and ``"on the left, dark background"`` are conditions on a bank of scenes, whose
    labels are whole prompts; so are class names, if labels are such. The empty prompt stands for all images.

    Parameters
    ----------
    images : ndarray, (image, channel, y, x)
        Values in [-1, 1]; kept as float32.
    labels : sequence of str
        One for each image.

    Raises
    ------
    ModelError
        Images have another shape or values, or there are not as many labels.

    Examples
    --------
    >>> images = np.zeros((2, 3, 12, 12))
    >>> bank = ImageBank(images, ["a red circle", "a red square"])
    >>> bank.matches(["red", "circle", ""]).tolist()
    [[True, True], [True, False], [True, True]]
    """

    images: NDArray[np.floating]
    labels: Sequence[str]
    _words: tuple[frozenset[str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        images = np.array(self.images, dtype=np.float32)
        labels = (self.labels,) if isinstance(self.labels, str) else tuple(map(str, self.labels))
        if images.ndim != 4 or not images.size:
            raise ModelError(f"A bank needs images, (image, channel, y, x); got an array of shape {images.shape}.")
        if not (np.abs(images) <= 1).all():
            raise ModelError(
                f"Images of a bank have values from -1 to 1; these go from {images.min():.4g} to {images.max():.4g}. "
                "Scale them, such as 2 * image - 1."
            )
        if len(labels) != len(images):
            raise ModelError(f"A bank needs a label for every image; got {len(labels)} labels of {len(images)} images.")
        images.flags.writeable = False
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "_words", tuple(_words_of(label) for label in labels))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name images and labels."""
        found = hashlib.sha256(repr((self.images.shape, self.labels)).encode())
        found.update(np.ascontiguousarray(self.images, dtype="<f4").tobytes())
        return found.hexdigest()[:16]

    def matches(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which images each prompt stands for.

        Parameters
        ----------
        prompts : sequence of str

        Returns
        -------
        ndarray of bool, (prompt, image)
            At least one is True of every prompt.

        Raises
        ------
        PromptError
            A prompt has words that no label has, or no label has all its words.
        """
        return np.stack([self._matching(str(prompt)) for prompt in prompts])

    def _matching(self, prompt: str) -> NDArray[np.bool_]:
        words = _words_of(prompt)
        known = frozenset[str]().union(*self._words)
        if unknown := sorted(words - known):
            listed = sorted(known)
            more = f" and {len(listed) - _MOST_WORDS} more" if len(listed) > _MOST_WORDS else ""
            raise PromptError(
                f"Prompt {shown(prompt)} has words that no image of the bank is labelled with: {', '.join(unknown)}. "
                f"Labels have: {' '.join(listed[:_MOST_WORDS])}{more}"
            )
        found = np.array([words <= own for own in self._words])
        if not found.any():
            raise PromptError(
                f"None of the {len(self)} images of the bank has all words of the prompt {shown(prompt)} in its "
                "label. Ask for less, or make the bank of more images."
            )
        return found


def _words_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\s,]+", text.lower()))


def scene_bank(images: int = 1080, *, size: int = 16, seed: int = 0) -> ImageBank:
    """Draw scenes of the embedded model's world, labelled with their prompts.

    Parameters
    ----------
    images : int
        Number of scenes; 1080 are one of every combination of factors, fewer a draw from them.
    size : int
        Height and width in pixels, up to 32; scenes are drawn at 32 and averaged over areas. Outcomes of the package
        take 11 or more.
    seed : int
        Of the draw, and of what is left to chance in a scene: place, size and tone.

    Raises
    ------
    ModelError
        A number is out of range.
    """
    if not is_integer(images) or images < 1:
        raise ModelError(f"scene_bank got images={shown(images)}; it takes an integer of at least 1.")
    if not is_integer(size) or not 1 <= size <= IMAGE_SIZE:
        raise ModelError(f"scene_bank got size={shown(size)}; it takes an integer from 1 to {IMAGE_SIZE}.")
    if not is_integer(seed) or seed < 0:
        raise ModelError(f"scene_bank got seed={shown(seed)}; it takes an integer of at least 0.")
    scenes = list(all_scenes()) if images == len(all_scenes()) else draw_scenes(images, seed=seed)
    drawn = render(scenes, np.random.default_rng(seed))
    area = _area(size)
    return ImageBank(area @ drawn @ area.T, [scene.prompt for scene in scenes])


def _area(size: int) -> NDArray[np.float32]:
    """Means over areas of a scene as a matrix, (size, IMAGE_SIZE); areas share the pixels that lie in several."""
    edges = np.arange(size + 1) * IMAGE_SIZE / size
    pixels = np.arange(IMAGE_SIZE)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(shared, 0, None) * size / IMAGE_SIZE, dtype=np.float32)
