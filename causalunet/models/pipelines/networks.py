"""Networks of diffusers, called the one way the executor calls: ``unet(x, timesteps, *context)``.

A wrapper adds no weights; diffusers' own module stays its submodule ``unet``, and its blocks are traced where they are.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

__all__ = [
    "BesideNetwork",
    "ClassTransformer",
    "JointTransformer",
    "LabelledNetwork",
    "MaskedTransformer",
    "Network",
    "PackedTransformer",
    "PromptedNetwork",
    "SizedNetwork",
]


_TOLD_SIZES = 128
"""Size of latents from which PixArt's networks are told that of the images."""


class Network(nn.Module):
    """What all have in common: x is given in the precision of the weights, and comes back in float32.

    Parameters
    ----------
    unet : torch.nn.Module
        Of diffusers, in evaluation mode.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = unet
        self.dtype = next(unet.parameters()).dtype

    def cast(self, x: Tensor) -> Tensor:
        """In the precision of the weights."""
        return x.to(self.dtype)


class LabelledNetwork(Network):
    """Without conditions, or with classes: ``UNet2DModel``."""

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict for rows with labels, (row,), which a network without classes is not told; (row, channel, y, x)."""
        has_classes = self.unet.class_embedding is not None
        told = {"class_labels": labels.clamp(min=0)} if has_classes else {}
        output: Tensor = self.unet(self.cast(x), timesteps, return_dict=False, **told)[0]
        return output.float()


class PromptedNetwork(Network):
    """With the states of a text encoder: ``UNet2DConditionModel``.

    Parameters
    ----------
    unet : torch.nn.Module
    told_guidance : float, optional
        Scale that a network with distilled guidance is told (Meng et al. 2023, section 3), as latent consistency models
        are.
    """

    def __init__(self, unet: nn.Module, told_guidance: float | None = None) -> None:
        super().__init__(unet)
        self.told_guidance = told_guidance

    def forward(self, x: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """Predict for rows with states, (row, token, width); (row, channel, y, x)."""
        told = None if self.told_guidance is None else self._embedded(self.told_guidance, len(x), x.device)
        output: Tensor = self.unet(self.cast(x), timesteps, states, timestep_cond=told, return_dict=False)[0]
        return output.float()

    def _embedded(self, scale: float, rows: int, device: torch.device) -> Tensor:
        """Sines and cosines of 1000 (scale - 1), as pipelines of diffusers have it."""
        width = self.unet.config.time_cond_proj_dim
        rates = torch.exp(torch.arange(width // 2, device=device) * -math.log(10_000.0) / (width // 2 - 1))
        angles = 1000 * (scale - 1) * rates
        waves = torch.cat([angles.sin(), angles.cos(), angles.new_zeros(width % 2)])
        return waves.to(self.dtype).expand(rows, -1)


class BesideNetwork(Network):
    """With the states of a text encoder, and an image beside x_t: of inpainting and upscaling.

    Parameters
    ----------
    unet : torch.nn.Module
    noise_level : int, optional
        Of the image, which a network for upscaling is told.
    """

    def __init__(self, unet: nn.Module, noise_level: int | None = None) -> None:
        super().__init__(unet)
        self.noise_level = noise_level

    def forward(self, x: Tensor, timesteps: Tensor, states: Tensor, beside: Tensor) -> Tensor:
        """Predict, (row, channel, y, x), by states, (row, token, width), and an image, (row, channel, y, x)."""
        told = {}
        if self.noise_level is not None:
            told = {"class_labels": torch.full((len(x),), self.noise_level, device=x.device)}
        joined = torch.cat([self.cast(x), self.cast(beside)], dim=1)
        output: Tensor = self.unet(joined, timesteps, states, return_dict=False, **told)[0]
        return output.float()


class ClassTransformer(Network):
    """With classes: ``DiTTransformer2DModel``."""

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict for rows with labels, (row,); (row, 2 * channel, y, x)."""
        output: Tensor = self.unet(self.cast(x), timestep=timesteps, class_labels=labels, return_dict=False)[0]
        return output.float()


class MaskedTransformer(Network):
    """With the states of a text encoder and a mask of them: ``PixArtTransformer2DModel``.

    Parameters
    ----------
    unet : torch.nn.Module
    size : tuple of int
        (y, x) of images in pixels, which networks for 1024 pixels are told.
    """

    def __init__(self, unet: nn.Module, size: tuple[int, int]) -> None:
        super().__init__(unet)
        self.size = size

    def forward(self, x: Tensor, timesteps: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Predict for rows with states, (row, token, width), and their mask, (row, token); (row, 2 * channel, y, x)."""
        height, width = self.size
        told: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.unet.config.sample_size == _TOLD_SIZES:
            rows = torch.ones(len(x), 1, dtype=self.dtype, device=x.device)
            told = {"resolution": rows * rows.new_tensor([height, width]), "aspect_ratio": rows * (height / width)}
        output: Tensor = self.unet(
            self.cast(x),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=timesteps,
            added_cond_kwargs=told,
            return_dict=False,
        )[0]
        return output.float()


class JointTransformer(Network):
    """With the states of three text encoders and a pooled one: ``SD3Transformer2DModel``.

    Timestep i lies at t = (i + 1) / timesteps along the straight path, which the network is told as i + 1.
    """

    def forward(self, x: Tensor, timesteps: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        """Predict for rows with states, (row, token, width), and a pooled one, (row, width); (row, channel, y, x)."""
        output: Tensor = self.unet(self.cast(x), states, pooled, timesteps + 1, return_dict=False)[0]
        return output.float()


class PackedTransformer(Network):
    """With the states of a text encoder and a pooled one of another: ``FluxTransformer2DModel``.

    It is given latents in tokens of 2 x 2, and places of tokens instead of an image's shape.

    Parameters
    ----------
    unet : torch.nn.Module
    timesteps : int
        Of the training.
    told_guidance : float, optional
        Scale that a network with distilled guidance is told.
    """

    def __init__(self, unet: nn.Module, timesteps: int, told_guidance: float | None = None) -> None:
        super().__init__(unet)
        self.timesteps, self.told_guidance = timesteps, told_guidance

    def forward(self, x: Tensor, timesteps: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        """Predict for rows with states, (row, token, width), and a pooled one, (row, width); (row, channel, y, x)."""
        y, x_size = x.shape[2] // 2, x.shape[3] // 2
        places = torch.cartesian_prod(torch.arange(1), torch.arange(y), torch.arange(x_size)).to(x)
        told = None if self.told_guidance is None else torch.full_like(timesteps, self.told_guidance)
        output: Tensor = self.unet(
            hidden_states=rearrange(self.cast(x), "r c (y p) (x q) -> r (y x) (c p q)", p=2, q=2),
            timestep=(timesteps + 1) / self.timesteps,
            guidance=told,
            pooled_projections=pooled,
            encoder_hidden_states=states,
            txt_ids=states.new_zeros(states.shape[1], 3),
            img_ids=places.to(states.dtype),
            return_dict=False,
        )[0]
        return rearrange(output.float(), "r (y x) (c p q) -> r c (y p) (x q)", y=y, x=x_size, p=2, q=2)


class SizedNetwork(Network):
    """With the states of two text encoders, and told sizes: ``UNet2DConditionModel`` of Stable Diffusion XL.

    Parameters
    ----------
    unet : torch.nn.Module
    sizes : sequence of float
        Original size, corner of the crop and size of the image, as it was trained with.
    """

    def __init__(self, unet: nn.Module, sizes: tuple[float, ...]) -> None:
        super().__init__(unet)
        self.sizes = sizes

    def forward(self, x: Tensor, timesteps: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        """Predict for rows with states, (row, token, width), and a pooled one, (row, width); (row, channel, y, x)."""
        sizes = torch.tensor([self.sizes], dtype=self.dtype, device=x.device).expand(len(x), -1)
        added = {"text_embeds": pooled, "time_ids": sizes}
        output: Tensor = self.unet(self.cast(x), timesteps, states, added_cond_kwargs=added, return_dict=False)[0]
        return output.float()
