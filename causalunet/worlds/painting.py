"""Images of scenes with groups: objects of about nine pixels on a dark ground, drawn many scenes at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalunet.worlds.groups import COLOURS, FACTORS, Codes, column, offsets

__all__ = ["IMAGE_SIZE", "render"]

IMAGE_SIZE = 32
"""Height and width of a scene in pixels."""

_MIDDLE = (IMAGE_SIZE - 1) / 2
_ALONG, _ACROSS = 3.5, 4.5
_DISTANCE, _BESIDE = 12.0, 10.4
"""Pixels: steps of places along and across the line of the groups, between groups, between objects of a group."""

_PATCH, _MARGIN = 12, 8
_SECOND_TONE = 0.35
_COLOUR_TABLE = np.array(list(COLOURS.values()), dtype=np.float32)

_Floats = NDArray[np.float32]


def render(codes: Codes, rng: np.random.Generator) -> _Floats:
    """Draw images of scenes, with a little freedom in place, size and tone.

    Parameters
    ----------
    codes : ndarray of int, (scene, factor)
    rng : numpy.random.Generator
        Source of that freedom.

    Returns
    -------
    ndarray of float32, (scene, channel, y, x)
        Values in [-1, 1].
    """
    n = len(codes)
    shift = rng.uniform(-0.7, 0.7, (n, 2))
    ground = rng.uniform(0.05, 0.12, (n, 1, 1, 1))
    side = IMAGE_SIZE + 2 * _MARGIN  # so that no patch reaches over the edge; cut off at the end
    image = np.broadcast_to(ground, (n, side, side, 3)).astype(np.float32)
    for group, sign in (("first", -0.5), ("second", 0.5)):
        radius = rng.uniform(4.1, 4.6, n)
        tone = rng.uniform(-0.03, 0.03, (n, 3))
        colour = (_COLOUR_TABLE[column(codes, f"{group} colour")] + tone).astype(np.float32)
        two = column(codes, f"{group} count") == 1
        for beside in (-0.5, 0.5):
            there = np.nonzero(two | (beside < 0))[0]
            spread = np.where(two, beside, 0.0) * _BESIDE
            centre = _centres(codes, group, sign, spread)[there] + shift[there]
            _paint(image, there, codes[there], group, centre, radius[there], colour[there])
    inner = image[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return np.ascontiguousarray((2 * np.clip(inner, 0, 1) - 1).transpose(0, 3, 1, 2))


def _centres(codes: Codes, group: str, sign: float, spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre of an object of every scene in pixels, (scene, (y, x))."""
    along = _MIDDLE + _ALONG * offsets(codes, "position") + sign * _DISTANCE
    across = _MIDDLE + _ACROSS * offsets(codes, f"{group} place") + spread
    above = column(codes, "relation") == FACTORS["relation"].index("above")
    return np.stack([np.where(above, along, across), np.where(above, across, along)], axis=1)


def _paint(
    image: _Floats,
    there: NDArray[np.int64],
    codes: Codes,
    group: str,
    centre: NDArray[np.float64],
    radius: NDArray[np.float64],
    colour: _Floats,
) -> None:
    """Lay one object each over the images ``there``; only the patch around an object is touched."""
    corner = np.floor(centre).astype(np.int64) - _PATCH // 2 + 1
    pixels = np.arange(_PATCH)
    rows, columns = corner[:, :1] + pixels, corner[:, 1:] + pixels
    y = (rows - centre[:, :1]).astype(np.float32)[:, :, None]
    x = (columns - centre[:, 1:]).astype(np.float32)[:, None, :]
    shape, texture = column(codes, f"{group} shape"), column(codes, f"{group} texture")
    size = radius.astype(np.float32)[:, None, None]
    distance = np.empty((len(there), _PATCH, _PATCH), dtype=np.float32)
    for code, outline in enumerate(_OUTLINES):
        chosen = shape == code
        distance[chosen] = outline(y[chosen], x[chosen], size[chosen])
    coverage = np.clip(0.5 - distance, 0, 1)[..., None]
    dark_rows, dark_columns = (np.round(values) // 2 % 2 == 1 for values in (y, x))
    dark = (texture >= 1)[:, None, None] & (dark_rows ^ (dark_columns & (texture == 2)[:, None, None]))
    front = colour[:, None, None, :] * np.where(dark, np.float32(_SECOND_TONE), np.float32(1))[..., None]
    place = (there[:, None, None], rows[:, :, None] + _MARGIN, columns[:, None, :] + _MARGIN)
    behind = image[place]
    image[place] = behind + coverage * (front - behind)


def _circle(y: _Floats, x: _Floats, radius: _Floats) -> _Floats:
    return np.hypot(y, x) - radius


def _square(y: _Floats, x: _Floats, radius: _Floats) -> _Floats:
    return np.maximum(abs(y), abs(x)) - np.float32(0.88) * radius


def _triangle(y: _Floats, x: _Floats, radius: _Floats) -> _Floats:
    slope = np.float32(0.58)
    side = (abs(x) - slope * (y + np.float32(1.05) * radius)) / np.hypot(np.float32(1), slope)
    return np.maximum(side, y - np.float32(0.85) * radius)


def _cross(y: _Floats, x: _Floats, radius: _Floats) -> _Floats:
    arm, length = np.float32(0.4) * radius, np.float32(1.05) * radius
    horizontal = np.maximum(abs(y) - arm, abs(x) - length)
    return np.minimum(horizontal, np.maximum(abs(x) - arm, abs(y) - length))


_OUTLINES = (_circle, _square, _triangle, _cross)
"""Distance to the outline in pixels, negative inside, in the order of the factor's values."""
