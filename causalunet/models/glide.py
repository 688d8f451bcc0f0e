"""GLIDE's base model: 64 x 64 pixels, 385 M parameters (Nichol et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from causalunet.errors import CheckpointError, MissingExtraError
from causalunet.models.base import register
from causalunet.models.byte_pairs import padded
from causalunet.models.checkpoints import file_digest, load_weights, read_weights
from causalunet.models.devices import usable_device
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.text_to_image import TextToImage, Tokenize
from causalunet.models.text_transformer import TextConfig
from causalunet.paths import given_path
from causalunet.schedule import cosine_alpha_bar

__all__ = ["GLIDE_CONFIG", "Glide", "load_glide"]

GLIDE_CONFIG = UNetConfig(
    image_size=64,
    model_channels=192,
    channel_mult=(1, 2, 3, 4),
    num_res_blocks=3,
    attention_resolutions=(32, 16, 8),
    head_channels=64,
    dropout=0.1,
    text=TextConfig(vocabulary=50257, context=128, width=512, layers=16, heads=8),
)
"""Sizes of the official base checkpoint."""


@dataclass(frozen=True, repr=False)
class Glide(TextToImage):
    """GLIDE's base model, and which file its weights are from.

    Parameters
    ----------
    checkpoint_sha256 : str
        SHA-256 of the checkpoint file, in hexadecimal digits.
    """

    checkpoint_sha256: str = ""


@register("glide")
def load_glide(
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    *,
    sha256: str | None = None,
    tokenize: Tokenize | None = None,
    config: UNetConfig = GLIDE_CONFIG,
) -> Glide:
    """Load GLIDE's base model in float32.

    Parameters
    ----------
    checkpoint : path, optional
        The official ``base.pt``, or a safetensors file of the same names. By default GLIDE's own package, where it is
        installed, downloads the official one into ``glide_model_cache`` in the working directory.
    device : str
        Where the model runs, such as ``cuda``.
    sha256 : str, optional
        What the file's SHA-256 must be. None is known here for the official file, and GLIDE's own package carries none.
        The digest found is the model's `checkpoint_sha256`.
    tokenize : callable, optional
        Prompts to padded tokens and mask; by default the tokenizer of GLIDE's own package.
    config : UNetConfig
        Sizes of another checkpoint of the same architecture.

    Raises
    ------
    CheckpointError
        The file is not there, not whole, has another digest, holds more than tensors, or is of another architecture.
        None of its code is run.
    MissingExtraError
        GLIDE's own package is needed and not installed.
    ModelError
        The device is not there, or PyTorch cannot use it.

    Notes
    -----
    Names and shapes in a PyTorch archive are checked before memory is taken for its weights; then they are held once.
    """
    place = usable_device(device)
    path = given_path(checkpoint) if checkpoint is not None else _download()
    digest = file_digest(path, sha256)
    with torch.device("meta"):
        unet = TextUNet(config)
    load_weights(unet, read_weights(path), str(path), device=place)
    tokenize = tokenize or _official_tokenize(config.text.context)
    return Glide("glide", unet.eval().requires_grad_(False), tokenize, cosine_alpha_bar(), checkpoint_sha256=digest)


def _download() -> Path:
    """Have GLIDE's own package fetch the checkpoint; reading it is ours, since theirs does not ask for tensors only."""
    try:
        from glide_text2im.download import MODEL_PATHS, fetch_file_cached
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"No checkpoint of GLIDE was given, and {error.name}, which downloads the official one, is not installed. "
            "Give checkpoint='path/to/base.pt', or install the extra: pip install 'causalunet[glide]'."
        ) from error
    try:
        return Path(fetch_file_cached(MODEL_PATHS["base"]))
    except OSError as error:
        raise CheckpointError(
            f"The official checkpoint of GLIDE could not be downloaded ({type(error).__name__}: {error}). "
            "Try again, or give the file: checkpoint='path/to/base.pt'."
        ) from error


def _official_tokenize(context: int) -> Tokenize:
    try:
        from glide_text2im.tokenizer.bpe import get_encoder
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"GLIDE's tokenizer needs {error.name}, which is not installed. Install the extra: "
            "pip install 'causalunet[glide]'; or hand in another tokenizer with tokenize=."
        ) from error
    return padded(get_encoder(), context)
