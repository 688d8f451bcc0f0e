"""Networks of diffusers, called the one way the executor calls: ``unet(x, timesteps, *context)``.

A wrapper adds no weights; diffusers' own module stays its submodule ``unet``, and its blocks are traced where they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LabelledNetwork", "Network", "PromptedNetwork", "SizedNetwork"]


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
    """With the states of a text encoder: ``UNet2DConditionModel``."""

    def forward(self, x: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """Predict for rows with states, (row, token, width); (row, channel, y, x)."""
        output: Tensor = self.unet(self.cast(x), timesteps, states, return_dict=False)[0]
        return output.float()


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
