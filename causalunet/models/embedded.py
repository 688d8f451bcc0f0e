"""What the embedded models share: the anatomy, and how their weights are loaded."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.resources import as_file, files
from pathlib import Path

import torch

from causalunet.design.limits import is_number
from causalunet.errors import CheckpointError
from causalunet.models.checkpoints import load_weights, read_training, read_weights
from causalunet.models.devices import usable_device
from causalunet.models.factor_reader import FactorReader
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.text_to_image import TextToImage
from causalunet.models.text_transformer import TextConfig
from causalunet.models.vocabulary import Vocabulary
from causalunet.paths import given_path
from causalunet.prediction import LEARNED, Prediction
from causalunet.schedule import cosine_alpha_bar, shifted_alpha_bar

__all__ = ["embedded_model", "small_unet"]


def small_unet(vocabulary: Vocabulary, *, attention: tuple[int, ...] = (8, 4)) -> UNetConfig:
    """Three residual blocks on each of four levels: 16 encoder blocks, bottleneck, 16 decoder blocks, as GLIDE base.

    Parameters
    ----------
    vocabulary : Vocabulary
        Of the prompts.
    attention : tuple of int
        Sizes in pixels at which attention follows the residual block.
    """
    return UNetConfig(
        image_size=32,
        model_channels=32,
        channel_mult=(1, 1, 2, 2),
        num_res_blocks=3,
        attention_resolutions=attention,
        head_channels=32,
        norm_groups=8,
        text=TextConfig(vocabulary=len(vocabulary.words) + 1, context=vocabulary.context, width=64, layers=2, heads=4),
    )


def embedded_model(
    name: str,
    config: UNetConfig,
    vocabulary: Vocabulary,
    *,
    reader: FactorReader,
    checkpoint: str | Path | None,
    device: str,
) -> TextToImage:
    """Build a model with its weights, by default those of the package, and the schedule that they were trained for.

    Raises
    ------
    CheckpointError
        The file is not a checkpoint of this architecture, or says a schedule that is none.
    ModelError
        The device is not there, or PyTorch cannot use it.
    """
    place = usable_device(device)
    with torch.device("meta"):
        unet = TextUNet(config)
    unet = unet.to_empty(device=place)
    shipped = files("causalunet") / "weights" / f"{name}.safetensors"
    with nullcontext(given_path(checkpoint)) if checkpoint is not None else as_file(shipped) as path:
        source = path.name if checkpoint is None else str(checkpoint)
        load_weights(unet, read_weights(path), source)
        training = read_training(path)
    unet.eval().requires_grad_(False)
    told = training.get("prediction")
    prediction = Prediction(told, variance=True) if told else LEARNED
    shift = training.get("log_snr_shift", 0.0)
    if not is_number(shift):
        raise CheckpointError(f"{source} says that log SNR was shifted by {shift!r}, which is no number.")
    alpha_bar = shifted_alpha_bar(cosine_alpha_bar(), shift)
    return TextToImage(name, unet, vocabulary, alpha_bar, reader=reader, prediction=prediction)
