"""Pipelines of diffusers in tiny form: their own classes, built from configuration, with weights at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.ddpm import pipeline_ddpm
from numpy.typing import NDArray

from causalunet.models.latent_diffusion import _tokenizer, build_text_encoder
from causalunet.noise import initial_noise

PROMPTS = ["a red square", "a blue circle"]
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
"""Of Stable Diffusion."""


def ddim(**options: Any) -> Any:
    """Stable Diffusion's DDIM scheduler, ending at the image unless told otherwise."""
    given = {"clip_sample": False, "set_alpha_to_one": True, "steps_offset": 1, **BETAS, **options}
    return diffusers.DDIMScheduler(**given)


def seeded(make: Callable[..., Any], **options: Any) -> Any:
    """Weights that are the same each time, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(**options).eval().requires_grad_(False)


def pixels(pipeline: str = "DDIMPipeline", scheduler: Any = None, **options: Any) -> Any:
    """Without conditions, in pixels."""
    unet = seeded(
        diffusers.UNet2DModel,
        **{
            "sample_size": 16,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            **options,
        },
    )
    return quiet(getattr(diffusers, pipeline)(unet, scheduler or diffusers.DDIMScheduler(clip_sample=False)))


def text_unet(**options: Any) -> Any:
    """In the layout of Stable Diffusion, with two levels."""
    given = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "cross_attention_dim": 64,
        "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return seeded(diffusers.UNet2DConditionModel, **{**given, **options})


def autoencoder(**options: Any) -> Any:
    """Latents of half the size."""
    given = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 16),
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 16,
    }
    return seeded(diffusers.AutoencoderKL, **{**given, **options})


def stable_diffusion(scheduler: Any = None, **options: Any) -> Any:
    """Stable Diffusion 1.x and 2.x."""
    return quiet(
        diffusers.StableDiffusionPipeline(
            vae=autoencoder(),
            unet=text_unet(**options),
            text_encoder=seeded(build_text_encoder),
            tokenizer=_tokenizer(),
            scheduler=scheduler or ddim(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def stable_diffusion_xl(scheduler: Any = None) -> Any:
    """Two text encoders and added conditions."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    first = seeded(build_text_encoder)
    second = seeded(lambda: CLIPTextModelWithProjection(CLIPTextConfig(**first.config.to_dict())))
    width = first.config.hidden_size
    unet = text_unet(
        cross_attention_dim=2 * width,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + width,
    )
    return quiet(
        diffusers.StableDiffusionXLPipeline(
            vae=autoencoder(),
            unet=unet,
            text_encoder=first,
            text_encoder_2=second,
            tokenizer=_tokenizer(),
            tokenizer_2=_tokenizer(),
            scheduler=scheduler or ddim(),
            add_watermarker=False,
        )
    )


def quiet(pipe: Any) -> Any:
    """Without a bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def own_images(pipe: Any, shape: tuple[int, int, int], seeds: list[int], *, steps: int, scale: float = 1.0) -> NDArray:
    """Images that the pipeline makes itself of the noise of seeds, a prompt with each, (sample, channel, y, x)."""
    x = torch.from_numpy(initial_noise(seeds, shape)).to(pipe.unet.dtype)
    if "text_encoder" not in pipe.components:
        with (
            mock.patch.object(pipeline_ddim, "randn_tensor", return_value=x),
            mock.patch.object(pipeline_ddpm, "randn_tensor", return_value=x),
        ):
            images = pipe(batch_size=len(seeds), num_inference_steps=steps, output_type="np").images
    else:
        images = pipe(
            PROMPTS[: len(seeds)], latents=x, num_inference_steps=steps, guidance_scale=scale, output_type="np"
        ).images
    return np.moveaxis(np.asarray(images), -1, 1)
