"""Pipelines of diffusers in tiny form: their own classes, built from configuration, with weights at random."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.ddpm import pipeline_ddpm
from diffusers.pipelines.deprecated.latent_diffusion_uncond import pipeline_latent_diffusion_uncond
from diffusers.pipelines.dit import pipeline_dit
from numpy.typing import NDArray

from causalunet.models.latent_diffusion import _tokenizer, build_text_encoder
from causalunet.noise import initial_noise

PROMPTS = ["a red square", "a blue circle"]
GUIDANCE = 3.5
"""That Flux is told."""
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


def latent_consistency(scheduler: Any = None) -> Any:
    """Stable Diffusion's layout with distilled guidance."""
    return quiet(
        diffusers.LatentConsistencyModelPipeline(
            vae=autoencoder(),
            unet=text_unet(time_cond_proj_dim=8),
            text_encoder=seeded(build_text_encoder),
            tokenizer=_tokenizer(),
            scheduler=scheduler or diffusers.LCMScheduler(clip_sample=False, **BETAS),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def latent_diffusion(scheduler: Any = None) -> Any:
    """Without conditions, in latents of a quantised autoencoder."""
    vqvae = seeded(
        diffusers.VQModel,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=3,
        norm_num_groups=4,
        num_vq_embeddings=16,
        sample_size=16,
    )
    unet = pixels(sample_size=8).unet
    return quiet(diffusers.LDMPipeline(vqvae=vqvae, unet=unet, scheduler=scheduler or ddim(set_alpha_to_one=False)))


def dit(scheduler: Any = None) -> Any:
    """A transformer with classes."""
    transformer = seeded(
        diffusers.DiTTransformer2DModel,
        sample_size=8,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=8,
    )
    return quiet(diffusers.DiTPipeline(transformer, autoencoder(), scheduler or ddim()))


def pixart(scheduler: Any = None) -> Any:
    """A transformer with the states of a text encoder."""
    transformer = seeded(
        diffusers.PixArtTransformer2DModel,
        sample_size=8,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
    )
    return quiet(
        diffusers.PixArtAlphaPipeline(
            tokenizer=_tokenizer(),
            text_encoder=t5(16),
            vae=autoencoder(),
            transformer=transformer,
            scheduler=scheduler or ddim(),
        )
    )


def t5(width: int) -> Any:
    """A text encoder as PixArt, Stable Diffusion 3 and Flux have it."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=64, d_model=width, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
    return seeded(lambda: T5EncoderModel(config))


def stable_diffusion_3(scheduler: Any = None, *, third: bool = True, **options: Any) -> Any:
    """A transformer of joint blocks with three text encoders, by flow matching."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    clip = seeded(lambda: CLIPTextModelWithProjection(CLIPTextConfig(**build_text_encoder().config.to_dict())))
    width = 2 * clip.config.hidden_size
    given = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "num_attention_heads": 3,
        "attention_head_dim": 8,
        "joint_attention_dim": width,
        "caption_projection_dim": 24,
        "pooled_projection_dim": width,
        "pos_embed_max_size": 8,
        "qk_norm": "rms_norm",
        "dual_attention_layers": (1,),
    }
    return quiet(
        diffusers.StableDiffusion3Pipeline(
            transformer=seeded(diffusers.SD3Transformer2DModel, **{**given, **options}),
            scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=autoencoder(shift_factor=0.1),
            text_encoder=clip,
            tokenizer=_tokenizer(),
            text_encoder_2=clip,
            tokenizer_2=_tokenizer(),
            text_encoder_3=t5(width) if third else None,
            tokenizer_3=_tokenizer() if third else None,
        )
    )


def flux(scheduler: Any = None, **options: Any) -> Any:
    """A transformer of joint blocks and of blocks of one stream, told its guidance, by flow matching."""
    given = {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "joint_attention_dim": 16,
        "pooled_projection_dim": 64,
        "axes_dims_rope": (4, 4, 8),
        "guidance_embeds": True,
    }
    pipe = diffusers.FluxPipeline(
        transformer=seeded(diffusers.FluxTransformer2DModel, **{**given, **options}),
        scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(shift_factor=0.1),
        text_encoder=seeded(build_text_encoder),
        tokenizer=_tokenizer(),
        text_encoder_2=t5(16),
        tokenizer_2=_tokenizer(),
    )
    pipe.default_sample_size = 8
    return quiet(pipe)


def deepfloyd_if(scheduler: Any = None) -> Any:
    """In pixels, with the states of a text encoder, learned variances and thresholds: DeepFloyd IF, stage 1."""
    unet = text_unet(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=32,
        encoder_hid_dim=32,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    given = {
        "beta_schedule": "squaredcos_cap_v2",
        "variance_type": "learned_range",
        "thresholding": True,
        "dynamic_thresholding_ratio": 0.95,
        "sample_max_value": 1.5,
    }
    return quiet(
        diffusers.IFPipeline(
            tokenizer=_tokenizer(),
            text_encoder=t5(32),
            unet=unet,
            scheduler=scheduler or diffusers.DDPMScheduler(**given),
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )
    )


def inpainting(scheduler: Any = None, **options: Any) -> Any:
    """Stable Diffusion that is told a mask and the latents of what is kept."""
    return quiet(
        diffusers.StableDiffusionInpaintPipeline(
            vae=autoencoder(),
            unet=text_unet(**{"in_channels": 9, **options}),
            text_encoder=seeded(build_text_encoder),
            tokenizer=_tokenizer(),
            scheduler=scheduler or ddim(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def upscaling(scheduler: Any = None) -> Any:
    """Stable Diffusion that is told a small image and how noisy it is."""
    return quiet(
        diffusers.StableDiffusionUpscalePipeline(
            vae=autoencoder(scaling_factor=0.08333),
            unet=text_unet(in_channels=7, num_class_embeds=1000),
            text_encoder=seeded(build_text_encoder),
            tokenizer=_tokenizer(),
            low_res_scheduler=diffusers.DDPMScheduler(**BETAS),
            scheduler=scheduler or ddim(prediction_type="v_prediction"),
        )
    )


def quiet(pipe: Any) -> Any:
    """Without a bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def own_images(
    pipe: Any, shape: tuple[int, int, int], seeds: list[int], *, steps: int, scale: float = 1.0, **options: Any
) -> NDArray:
    """Images that the pipeline makes itself of the noise of seeds, a prompt with each, (sample, channel, y, x)."""
    given: dict[str, Any] = {"num_inference_steps": steps, "output_type": "np", **options}
    network = pipe.transformer if "transformer" in pipe.components else pipe.unet
    x = torch.from_numpy(initial_noise(seeds, shape)).to(network.dtype)
    if isinstance(pipe, diffusers.FluxPipeline):
        given |= {"negative_prompt": [""] * len(seeds), "true_cfg_scale": scale}
        x, scale = pipe._pack_latents(x, *x.shape), GUIDANCE
    if isinstance(pipe, diffusers.PixArtAlphaPipeline):
        given |= {"clean_caption": False, "use_resolution_binning": False}
    drawn = (pipeline_ddim, pipeline_ddpm, pipeline_dit, pipeline_latent_diffusion_uncond)
    with contextlib.ExitStack() as stack:
        for module in drawn:
            stack.enter_context(mock.patch.object(module, "randn_tensor", return_value=x))
        if "text_encoder" in pipe.components:
            images = pipe(PROMPTS[: len(seeds)], latents=x, guidance_scale=scale, **given).images
        elif "transformer" in pipe.components:
            images = pipe(class_labels=[207, 360], guidance_scale=scale, **given).images
        else:
            images = pipe(batch_size=len(seeds), **given).images
    return np.moveaxis(np.asarray(images), -1, 1)
