"""The parts of ``shapes-latent``, in the layout of Stable Diffusion: diffusers' own classes, small.

Source: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models". The folder that
`save_pipeline` writes is read by ``diffusers.StableDiffusionPipeline.from_pretrained``.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalunet.errors import CheckpointError, ModelError
from causalunet.models.vocabulary import CONTEXT, WORDS
from causalunet.scenes import IMAGE_SIZE

__all__ = [
    "LATENT_SHAPE",
    "TEXT_SHAPE",
    "build_autoencoder",
    "build_text_encoder",
    "build_unet",
    "load_pipeline",
    "save_pipeline",
]

LATENT_SHAPE = (4, IMAGE_SIZE // 2, IMAGE_SIZE // 2)
"""(channel, y, x) of a latent."""

_TEXT_WIDTH = 64
TEXT_SHAPE = (CONTEXT, _TEXT_WIDTH)
"""(token, channel) of what the U-Net is told of a prompt."""

_NORM_GROUPS = 8


def _diffusers() -> Any:
    """The package, or an error that says how to get it."""
    try:
        import diffusers
        import transformers  # noqa: F401 - diffusers only says that a class is missing
    except ImportError as error:
        raise ModelError(
            f"shapes-latent is made of parts of diffusers and transformers, and {error.name} is not installed: "
            "pip install 'causalunet[diffusers]'."
        ) from error
    return diffusers


def build_autoencoder() -> nn.Module:
    """An ``AutoencoderKL``: images of 3 x 32 x 32 to latents of 4 x 16 x 16 and back; weights at random.

    Raises
    ------
    ModelError
        diffusers is not installed.
    """
    autoencoder: Any = _diffusers().AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=LATENT_SHAPE[0],
        norm_num_groups=4,  # a group of one channel would lose what is the same everywhere, such as a ground
        sample_size=IMAGE_SIZE,
    )
    with torch.no_grad():  # latents are told apart from their noise from the first iteration on
        autoencoder.quant_conv.bias[LATENT_SHAPE[0] :] -= 6
    return autoencoder


def build_unet() -> nn.Module:
    """A ``UNet2DConditionModel``: four levels of two blocks, the upper three with cross-attention; weights at random.

    Raises
    ------
    ModelError
        diffusers is not installed.
    """
    return _diffusers().UNet2DConditionModel(
        sample_size=LATENT_SHAPE[1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=2,
        norm_num_groups=_NORM_GROUPS,
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=(1, 4, 4, 4),  # diffusers means the number of heads; at 256 places they cost most
    )


def build_text_encoder() -> nn.Module:
    """A ``CLIPTextModel``: CLIP's text transformer over the words of `causalunet.models.vocabulary`; weights at random.

    Raises
    ------
    ModelError
        diffusers or transformers is not installed.
    """
    _diffusers()
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(WORDS) + 1,
            hidden_size=_TEXT_WIDTH,
            intermediate_size=4 * _TEXT_WIDTH,
            projection_dim=_TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def _tokenizer() -> Any:
    """The words of `causalunet.models.vocabulary` as a tokenizer of transformers: the same ids, padding is 0."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    padding = "[PAD]"
    words = Tokenizer(
        models.WordLevel({padding: 0} | {word: token for token, word in enumerate(WORDS, 1)}, unk_token=padding)
    )
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    build: Any = PreTrainedTokenizerFast  # has no types
    return build(tokenizer_object=words, pad_token=padding, model_max_length=CONTEXT)


def _scheduler() -> Any:
    """DDIM on the squared-cosine schedule, for a prediction of v; the last step ends at the image itself."""
    return _diffusers().DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        steps_offset=1,  # of no effect with this spacing; the pipeline asks for it
    )


def save_pipeline(
    folder: Path,
    *,
    autoencoder: nn.Module,
    unet: nn.Module,
    text_encoder: nn.Module,
    scaling_factor: float,
) -> None:
    """Write the folder of a pipeline, its weights in float16.

    Parameters
    ----------
    folder : Path
    autoencoder, unet, text_encoder : torch.nn.Module
        Left as they are.
    scaling_factor : float
        What latents are multiplied with to have standard deviation one.
    """
    parts: list[Any] = [copy.deepcopy(part).cpu().half() for part in (autoencoder, unet, text_encoder)]
    parts[0].register_to_config(scaling_factor=scaling_factor)
    pipeline = _diffusers().StableDiffusionPipeline(
        vae=parts[0],
        unet=parts[1],
        text_encoder=parts[2],
        tokenizer=_tokenizer(),
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without bars for three small files, and without advice on processors of images that are not used."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [kind for kind in (of_diffusers, of_transformers) if kind.is_progress_bar_enabled()]
    level = of_transformers.get_verbosity()
    for kind in shown:
        kind.disable_progress_bar()
    of_transformers.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        of_transformers.set_verbosity(level)
        for kind in shown:
            kind.enable_progress_bar()


def load_pipeline(folder: Path, device: str | torch.device = "cpu") -> Any:
    """Read the folder of a pipeline, in float32: a ``diffusers.StableDiffusionPipeline``.

    Raises
    ------
    CheckpointError
        There is no pipeline in the folder.
    ModelError
        diffusers or transformers is not installed.
    """
    diffusers = _diffusers()
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(f"There is no pipeline at {folder}: a folder with model_index.json is expected.")
    with _quiet():
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, low_cpu_mem_usage=False, local_files_only=True
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
