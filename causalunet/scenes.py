"""The world of the embedded model: procedural scenes with five independent factors.

A scene is one coloured, textured shape on a background, told by a prompt such as
"a striped red triangle on the left, dark background". The factors are independent by construction, so that an
effect of an intervention can be told as "the colour changed, the shape did not".
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import PromptError

__all__ = ["FACTORS", "IMAGE_SIZE", "Scene", "all_scenes", "draw_scenes", "held_out", "render"]

IMAGE_SIZE = 32
"""Height and width of a scene in pixels."""

_COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.12, 0.20, 0.95),
    "yellow": (0.95, 0.90, 0.10),
    "magenta": (0.90, 0.10, 0.85),
    "cyan": (0.10, 0.85, 0.90),
}
_POSITIONS = {
    "on the left": (16.0, 9.0),
    "on the right": (16.0, 23.0),
    "at the top": (9.0, 16.0),
    "at the bottom": (23.0, 16.0),
    "in the centre": (16.0, 16.0),
}
_BACKGROUNDS = {"dark": (0.08, 0.08), "light": (0.92, 0.92), "gradient": (0.15, 0.85)}
_SECOND_TONE = 0.35

FACTORS: dict[str, tuple[str, ...]] = {
    "texture": ("solid", "striped", "checkered"),
    "colour": tuple(_COLOURS),
    "shape": ("circle", "square", "triangle", "cross"),
    "position": tuple(_POSITIONS),
    "background": tuple(_BACKGROUNDS),
}
"""The values of every factor, in the order in which a prompt names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One value for every factor.

    Parameters
    ----------
    texture, colour, shape, position, background : str
        One of the values in `FACTORS`.

    Examples
    --------
    >>> scene = Scene(
    ...     texture="striped",
    ...     colour="red",
    ...     shape="triangle",
    ...     position="on the left",
    ...     background="dark",
    ... )
    >>> scene.prompt
    'a striped red triangle on the left, dark background'
    >>> Scene.parse(scene.prompt) == scene
    True
    """

    texture: str
    colour: str
    shape: str
    position: str
    background: str

    def __post_init__(self) -> None:
        for factor, values in FACTORS.items():
            if getattr(self, factor) not in values:
                raise PromptError(f"{factor} {getattr(self, factor)!r} is not one of {', '.join(values)}.")

    @property
    def prompt(self) -> str:
        """The prompt that describes the scene."""
        return f"a {self.texture} {self.colour} {self.shape} {self.position}, {self.background} background"

    @property
    def codes(self) -> tuple[int, ...]:
        """Index of every factor's value, in the order of `FACTORS`."""
        return tuple(values.index(getattr(self, factor)) for factor, values in FACTORS.items())

    @classmethod
    def parse(cls, prompt: str) -> Scene:
        """Read the scene back from a prompt in the form of `prompt`.

        Raises
        ------
        PromptError
            The prompt does not have that form, or a factor has an unknown value.
        """
        subject, _, background = prompt.partition(", ")
        words = subject.split(" ", 4)
        if len(words) != 5 or words[0] != "a" or not background.endswith(" background"):
            raise PromptError(
                f"{prompt!r} does not describe a whole scene. "
                "Write it as 'a <texture> <colour> <shape> <position>, <background> background'."
            )
        texture, colour, shape, position = words[1:]
        return cls(
            texture=texture,
            colour=colour,
            shape=shape,
            position=position,
            background=background.removesuffix(" background"),
        )


def all_scenes() -> tuple[Scene, ...]:
    """Every combination of factor values, in a fixed order."""
    names = [field.name for field in fields(Scene)]
    return tuple(
        Scene(**dict(zip(names, values, strict=True)))
        for values in itertools.product(*(FACTORS[name] for name in names))
    )


def held_out(scene: Scene) -> bool:
    """Whether the combination was kept from training (one in ten, chosen by a hash of the prompt)."""
    return hashlib.sha256(scene.prompt.encode()).digest()[0] % 10 == 0


def draw_scenes(n: int, *, seed: int = 0, only_held_out: bool = False) -> list[Scene]:
    """Draw scenes at random, without repetition while there are enough.

    Parameters
    ----------
    n : int
        Number of scenes.
    seed : int
        Seed of the draw.
    only_held_out : bool
        Draw from the combinations that training never saw.
    """
    pool = [scene for scene in all_scenes() if held_out(scene) or not only_held_out]
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(pool)) for _ in range(-(-n // len(pool)))])
    return [pool[index] for index in order[:n]]


def render(scenes: Sequence[Scene], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw images of scenes, with a little freedom in place, size and tone.

    Parameters
    ----------
    scenes : sequence of Scene
    rng : numpy.random.Generator
        Source of that freedom.

    Returns
    -------
    ndarray of float32, (scene, channel, y, x)
        Values in [-1, 1].
    """
    n = len(scenes)
    axis = np.arange(IMAGE_SIZE, dtype=np.float32)
    centre = np.array([_POSITIONS[scene.position] for scene in scenes]) + rng.uniform(-1, 1, (n, 2)) - 0.5
    y = axis[None, :, None] - centre[:, 0, None, None]
    x = axis[None, None, :] - centre[:, 1, None, None]
    radius = rng.uniform(6.0, 7.0, (n, 1, 1))
    distance = np.stack([_signed_distance(scene.shape, y[i], x[i], radius[i]) for i, scene in enumerate(scenes)])
    coverage = np.clip(0.5 - distance, 0, 1)[:, None]
    second = np.stack([_second_tone(scene.texture, y[i], x[i]) for i, scene in enumerate(scenes)])[:, None]
    colour = np.array([_COLOURS[scene.colour] for scene in scenes]) + rng.uniform(-0.03, 0.03, (n, 3))
    foreground = colour[:, :, None, None] * np.where(second, _SECOND_TONE, 1.0)
    ends = np.array([_BACKGROUNDS[scene.background] for scene in scenes]) + rng.uniform(-0.03, 0.03, (n, 1))
    ramp = axis / (IMAGE_SIZE - 1)
    background = (ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * ramp)[:, None, :, None]
    image = coverage * foreground + (1 - coverage) * background
    return (2 * np.clip(image, 0, 1) - 1).astype(np.float32)


def _signed_distance(
    shape: str, y: NDArray[np.floating], x: NDArray[np.floating], radius: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Distance to the outline in pixels, negative inside."""
    if shape == "circle":
        return np.hypot(y, x) - radius
    if shape == "square":
        return np.maximum(abs(y), abs(x)) - 0.88 * radius
    if shape == "triangle":
        slope = 0.58
        side = (abs(x) - slope * (y + 1.05 * radius)) / np.hypot(1.0, slope)
        return np.maximum(side, y - 0.85 * radius)
    arm = 0.4 * radius
    horizontal = np.maximum(abs(y) - arm, abs(x) - 1.05 * radius)
    vertical = np.maximum(abs(x) - arm, abs(y) - 1.05 * radius)
    return np.minimum(horizontal, vertical)


def _second_tone(texture: str, y: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where the darker second tone lies; stripes and squares are two pixels wide, fixed to the shape."""
    rows = (np.round(y) // 2 % 2).astype(bool)
    columns = (np.round(x) // 2 % 2).astype(bool)
    if texture == "solid":
        return np.zeros(np.broadcast_shapes(y.shape, x.shape), dtype=bool)
    return np.broadcast_to(rows, np.broadcast_shapes(y.shape, x.shape)) if texture == "striped" else rows ^ columns
