"""What pipelines in latents have in common: shapes, decoder, and all that changes images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from causalunet.errors import ModelError
from causalunet.models.pipelines.asked import Asked, Size, size_of_network
from causalunet.models.pipelines.conditions import Conditions
from causalunet.models.pipelines.model import PipelineModel
from causalunet.models.pipelines.networks import Network
from causalunet.models.pipelines.schedulers import Asking, read_noise

__all__ = ["in_latents", "shapes_of"]


class _Decoder(nn.Module):
    """Latents to pictures in [-1, 1].

    Parameters
    ----------
    vae : torch.nn.Module
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures, (sample, channel, y, x)."""
        config = self.vae.config
        mean, spread = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        scaled = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        if mean is not None and spread is not None:
            centre, width = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (mean, spread))
            scaled = latents * width / config.scaling_factor + centre
        pictures: Tensor = self.vae.decode(scaled.to(self.vae.dtype), return_dict=False)[0]
        return pictures


def shapes_of(
    vae: Any,
    unet: Any,
    size: Size | None,
    *,
    packed: int = 1,
    made_for: Size | None = None,
    channels: int | None = None,
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(channel, y, x) of latents and of pictures.

    Parameters
    ----------
    vae, unet : torch.nn.Module
    size : tuple of int, optional
        Pixels that were asked for.
    packed : int
        Side of the squares of latents whose channels the network is given as one token.
    made_for : tuple of int, optional
        Latents along y and x where no size was asked for; by default as the network says.
    channels : int, optional
        Of latents; by default all that the network is given.
    """
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    patch = packed * (getattr(unet.config, "patch_size", None) or 1)
    unit = factor * patch
    if size is not None and (size[0] % unit or size[1] % unit):
        what = "a latent" if patch == 1 else "a token of the network"
        raise ModelError(f"image_size={size}: {what} stands for {unit} x {unit} pixels; give multiples of {unit}.")
    y, x = (made_for or size_of_network(unet)) if size is None else (size[0] // factor, size[1] // factor)
    return (channels or unet.config.in_channels // packed**2, y, x), (vae.config.out_channels, y * factor, x * factor)


def in_latents(
    asked: Asked,
    vae: Any,
    network: Network,
    conditions: Conditions,
    *,
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None,
    asking: Asking | None = None,
    more: Mapping[str, Any] | None = None,
) -> PipelineModel:
    """Make the model.

    Parameters
    ----------
    asked : Asked
    vae : torch.nn.Module
        Its decoder.
    network : Network
    conditions : Conditions
    shapes : tuple, optional
        From `shapes_of`, where it takes more than the network to say them.
    asking : Asking, optional
        Of networks of flow matching.
    more : mapping, optional
        What else changes images, by name: plain values.
    """
    unet, scheduler = network.unet, asked.pipe.scheduler
    latents, pictures = shapes or shapes_of(vae, unet, asked.size)
    variance = unet.config.out_channels == 2 * unet.config.in_channels
    noise = read_noise(scheduler, variance=variance, flow=asking is not None)
    settings: dict[str, Any] = {"scaling_factor": float(vae.config.scaling_factor), **(more or {})}
    for name in ("shift_factor", "latents_mean", "latents_std"):
        if (value := getattr(vae.config, name, None)) is not None:
            settings[name] = [float(one) for one in value] if isinstance(value, list | tuple) else float(value)
    if asked.told_guidance is not None:
        settings["told_guidance"] = float(asked.told_guidance)
    parts = {key: part for key, part in asked.pipe.components.items() if isinstance(part, nn.Module)}
    for part in parts.values():
        part.eval()
    return PipelineModel(
        asked.name, network, conditions, noise, latents, pictures, scheduler, _Decoder(vae), parts, settings, asking
    )
