"""The embedded text-to-image model ``shapes``: 32 x 32 pixels, GLIDE's layout, about 3 M parameters."""

from __future__ import annotations

from pathlib import Path

from causalunet.models.base import register
from causalunet.models.embedded import embedded_model, small_unet
from causalunet.models.factor_reader import load_reader
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import tokenize

__all__ = ["SHAPES_CONFIG", "load_shapes"]

SHAPES_CONFIG = small_unet(tokenize)
"""16 encoder blocks, bottleneck, 16 decoder blocks, as GLIDE base."""


@register("shapes")
def load_shapes(checkpoint: str | Path | None = None, device: str = "cpu") -> TextToImage:
    """Load the embedded model.

    Parameters
    ----------
    checkpoint : path, optional
        Weights of the same architecture; by default those that ship with the package.
    device : str
        Where the U-Net runs, such as ``cuda``.

    Raises
    ------
    CheckpointError
        The file is not a checkpoint of this architecture.
    ModelError
        The device is not there, or PyTorch cannot use it.
    """
    return embedded_model(
        "shapes",
        SHAPES_CONFIG,
        tokenize,
        reader=load_reader(),
        checkpoint=checkpoint,
        device=device,
    )
