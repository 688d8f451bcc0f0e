"""U-Net objects of OpenAI's packages, called the one way the executor calls: ``unet(x, timesteps, *context)``.

A wrapper adds no weights; the object stays its submodule ``unet``, so that its blocks are traced where they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from causalunet.models.openai_layout import timestep_embedding

__all__ = ["LabelledUNet", "TextConditionedUNet", "WrappedUNet"]


class WrappedUNet(nn.Module):
    """What both kinds share.

    Parameters
    ----------
    unet : torch.nn.Module
        The object handed in.
    fraction : float, optional
        Of a U-Net that predicts noise only: where the log variance lies between its bounds, -1 or 1. It is appended to
        the output as if the U-Net had predicted it.
    time_scale : float
        What timesteps are multiplied by before the U-Net is given them.
    """

    def __init__(self, unet: Any, fraction: float | None = None, time_scale: float = 1.0) -> None:
        super().__init__()
        self.unet = unet
        self.fraction, self.time_scale = fraction, time_scale

    def scaled(self, timesteps: Tensor) -> Tensor:
        """Timesteps as the U-Net was trained with them, (row,)."""
        return timesteps if self.time_scale == 1.0 else timesteps.float() * self.time_scale

    def with_fraction(self, output: Tensor) -> Tensor:
        """Noise and variance fraction, (row, 2 * channel, y, x)."""
        if self.fraction is None:
            return output
        return torch.cat([output, torch.full_like(output, self.fraction)], dim=1)

    @property
    def unconditional(self) -> bool:
        """Whether the U-Net is given nothing but x_t and the timestep."""
        return False

    @property
    def guidable(self) -> bool:
        """Whether the empty prompt means "no condition", so that there is something to guide from."""
        return True

    def example(self) -> tuple[Tensor, ...]:
        """Context of one row, on the meta device."""
        raise NotImplementedError


class TextConditionedUNet(WrappedUNet):
    """GLIDE's own ``Text2ImUNet``, without the text transformer, which runs once per prompt and not once per step."""

    def example(self) -> tuple[Tensor, ...]:
        """Context of one row, on the meta device."""
        width = self.unet.transformer_proj.out_features
        sequence = torch.empty(1, self.unet.xf_width, self.unet.text_ctx, device="meta")
        return torch.empty(1, width, device="meta"), sequence

    def encode_text(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run the text transformer on tokens and mask, both (prompt, token).

        Returns
        -------
        pooled : Tensor, (prompt, 4 * model_channels)
        sequence : Tensor, (prompt, width, token)
        """
        parts = self.unet.get_text_emb(tokens, mask)
        return parts["xf_proj"], parts["xf_out"]

    def forward(self, x: Tensor, timesteps: Tensor, pooled: Tensor, sequence: Tensor) -> Tensor:
        """Predict noise and variance, (row, 2 * channel, y, x), by the object's blocks in the order of its forward."""
        embedding = self.unet.time_embed(timestep_embedding(self.scaled(timesteps), self.unet.model_channels)) + pooled
        h, skips = x, []
        for block in self.unet.input_blocks:
            h = block(h, embedding, sequence)
            skips.append(h)
        h = self.unet.middle_block(h, embedding, sequence)
        for block in self.unet.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding, sequence)
        return self.with_fraction(self.unet.out(h))


class LabelledUNet(WrappedUNet):
    """``UNetModel`` of guided-diffusion and improved-diffusion, with class labels or without.

    Parameters
    ----------
    unet : torch.nn.Module
        The object handed in.
    null_class : int, optional
        The class that stands for "no class".
    """

    def __init__(self, unet: Any, null_class: int | None = None) -> None:
        super().__init__(unet)
        self.null_class = null_class

    @property
    def guidable(self) -> bool:
        """Whether one of its classes stands for "no class"."""
        return self.null_class is not None

    @property
    def unconditional(self) -> bool:
        """Whether it has no classes."""
        return getattr(self.unet, "num_classes", None) is None

    def example(self) -> tuple[Tensor, ...]:
        """Context of one row, on the meta device."""
        return (torch.empty(1, dtype=torch.long, device="meta"),)

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict noise and variance, (row, 2 * channel, y, x), of rows with labels, (row,)."""
        if self.unconditional:
            return self.with_fraction(self.unet(x, self.scaled(timesteps)))
        return self.with_fraction(self.unet(x, self.scaled(timesteps), labels.clamp(min=0)))
