"""The embedded text-to-image model ``shapes``: 32 x 32 pixels, GLIDE's layout, about 3 M parameters."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import torch

from causalunet.models.base import register
from causalunet.models.checkpoints import load_weights, read_weights
from causalunet.models.devices import usable_device
from causalunet.models.factor_reader import load_reader
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.text_to_image import TextToImage
from causalunet.models.text_transformer import TextConfig
from causalunet.models.vocabulary import CONTEXT, WORDS, tokenize
from causalunet.paths import given_path
from causalunet.schedule import cosine_alpha_bar

__all__ = ["SHAPES_CONFIG", "load_shapes"]

SHAPES_CONFIG = UNetConfig(
    image_size=32,
    model_channels=32,
    channel_mult=(1, 1, 2, 2),
    num_res_blocks=3,
    attention_resolutions=(8, 4),
    head_channels=32,
    norm_groups=8,
    text=TextConfig(vocabulary=len(WORDS) + 1, context=CONTEXT, width=64, layers=2, heads=4),
)
"""Three residual blocks on each of four levels: 16 encoder blocks, bottleneck, 16 decoder blocks, as GLIDE base."""


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
    place = usable_device(device)
    with torch.device("meta"):
        unet = TextUNet(SHAPES_CONFIG)
    unet = unet.to_empty(device=place)
    if checkpoint is not None:
        load_weights(unet, read_weights(given_path(checkpoint)), str(checkpoint))
    else:
        with as_file(files("causalunet") / "weights" / "shapes.safetensors") as path:
            load_weights(unet, read_weights(path), path.name)
    unet.eval().requires_grad_(False)
    return TextToImage("shapes", unet, tokenize, cosine_alpha_bar(), reader=load_reader())
