"""The embedded text-to-image model ``scenes``: the anatomy of ``shapes``, on a world in which a layout is decided."""

from __future__ import annotations

from pathlib import Path

from causalunet.models.base import register
from causalunet.models.embedded import embedded_model, small_unet
from causalunet.models.factor_reader import SCENES_READER, FactorReader, load_reader
from causalunet.models.openai_layout import UNetConfig
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import SCENES_VOCABULARY
from causalunet.paths import given_path

__all__ = ["SCENES_CONFIG", "load_scenes"]

SCENES_CONFIG = small_unet(SCENES_VOCABULARY)
"""16 encoder blocks, bottleneck, 16 decoder blocks, as GLIDE base."""


@register("scenes")
def load_scenes(
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    *,
    reader: str | Path | None = None,
    config: UNetConfig = SCENES_CONFIG,
) -> TextToImage:
    """Load the model.

    Parameters
    ----------
    checkpoint : path, optional
        Weights of the same architecture; by default those that ship with the package.
    device : str
        Where the U-Net runs, such as ``cuda``.
    reader : path, optional
        Weights of the factor reader; by default those that ship with the package.
    config : UNetConfig
        Another architecture that was trained on this world.

    Raises
    ------
    CheckpointError
        A file is not a checkpoint of this architecture.
    ModelError
        The device is not there, or PyTorch cannot use it.
    """
    read = load_reader(SCENES_READER) if reader is None else FactorReader.from_file(given_path(reader), SCENES_READER)
    return embedded_model(
        "scenes",
        config,
        SCENES_VOCABULARY,
        reader=read,
        checkpoint=checkpoint,
        device=device,
    )
