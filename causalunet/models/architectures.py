"""The architectures that the package knows, whether or not their weights are at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from causalunet.calls import clear_calls
from causalunet.design.anatomy import Anatomy
from causalunet.models.glide import GLIDE_CONFIG
from causalunet.models.openai_anatomy import read_anatomy
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.scenes import SCENES_CONFIG
from causalunet.models.shapes import SHAPES_CONFIG

__all__ = ["Architecture", "architectures"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Architecture:
    """A known U-Net.

    Parameters
    ----------
    name : str
    image_size : int
        Pixels.
    anatomy : Anatomy
        Read off the network, built without weights.
    weights : str
        Where weights come from.
    """

    name: str
    image_size: int
    anatomy: Anatomy
    weights: str


def architectures() -> tuple[Architecture, ...]:
    """Describe every known architecture; allocates no weights."""
    known: tuple[tuple[str, UNetConfig, str], ...] = (
        ("shapes", SHAPES_CONFIG, "in the package"),
        ("scenes", SCENES_CONFIG, "in the package"),
        ("glide", GLIDE_CONFIG, "official base.pt, by its path or by the extra glide"),
    )
    return tuple(_describe(*entry) for entry in known)


def _describe(name: str, config: UNetConfig, weights: str) -> Architecture:
    with torch.device("meta"):
        unet = TextUNet(config)
    return Architecture(name, config.image_size, read_anatomy(unet), weights)
