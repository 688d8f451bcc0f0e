"""A small transformer that predicts the velocity of a flow, conditioned on text: the network of ``shapes-flow``.

Sources: Peebles & Xie 2023, "Scalable Diffusion Models with Transformers" (patches, adaLN-zero); Chen et al. 2024,
"PixArt-alpha", section 2.3 (cross-attention to the text, one projection of the time for all blocks). Written anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from causalunet.calls import clear_calls
from causalunet.models.openai_layout import timestep_embedding
from causalunet.models.text_transformer import (
    FeedForward,
    SelfAttention,
    TextConfig,
    TextEmbedding,
    Transformer,
    replace_padding,
)
from causalunet.models.vocabulary import CONTEXT, WORDS

__all__ = ["FLOW_CONFIG", "FlowBlock", "FlowConfig", "FlowTransformer", "TextEncoder"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """Sizes of a flow transformer.

    Parameters
    ----------
    image_size, channels : int
        Height and width in pixels, and colour channels, of an image.
    patch : int
        Height and width of the square of pixels that becomes one token.
    width, depth, heads : int
        Channels of a token, blocks, and attention heads.
    text : TextConfig
        Sizes of the text transformer.
    """

    image_size: int
    channels: int
    patch: int
    width: int
    depth: int
    heads: int
    text: TextConfig


FLOW_CONFIG = FlowConfig(
    image_size=32,
    channels=3,
    patch=4,
    width=128,
    depth=12,
    heads=4,
    text=TextConfig(vocabulary=len(WORDS) + 1, context=CONTEXT, width=128, layers=2, heads=4),
)
"""Sizes of ``shapes-flow``: 64 patches of 4 x 4 pixels, 12 blocks."""


class TextEncoder(nn.Module):
    """Tokens to what a network is conditioned on: learned vectors stand where a prompt is padded.

    Parameters
    ----------
    config : TextConfig
    pooled : int
        Channels of the one vector per prompt.
    """

    def __init__(self, config: TextConfig, pooled: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context, config.width))
        self.padding_embedding = nn.Parameter(0.01 * torch.randn(config.context, config.width))
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, pooled)

    def forward(self, tokens: Tensor, mask: Tensor) -> TextEmbedding:
        """Encode padded prompts; ``mask`` is true for real tokens, both (batch, context)."""
        embedded = self.token_embedding(tokens) + self.positional_embedding
        sequence = self.norm(self.transformer(replace_padding(embedded, mask, self.padding_embedding)))
        return TextEmbedding(self.projection(sequence[:, -1]), rearrange(sequence, "b n c -> b c n"))


class CrossAttention(nn.Module):
    """Patches ask, the text answers; starts as zero, so that a block starts as the identity."""

    def __init__(self, width: int, text_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(text_width, 2 * width)
        self.projection = _zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, sequence: Tensor) -> Tensor:
        """Attend from patches ``x``, (batch, patch, width), to the text, (batch, text width, token)."""
        query = rearrange(self.query(x), "b n (h c) -> b h n c", h=self.heads)
        pair = self.key_value(rearrange(sequence, "b c n -> b n c"))
        key, value = rearrange(pair, "b n (two h c) -> two b h n c", two=2, h=self.heads)
        return self.projection(rearrange(F.scaled_dot_product_attention(query, key, value), "b h n c -> b n (h c)"))


class FlowBlock(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward; all residual.

    The time, and the text as a whole, shift and scale what the first and the last read and gate what they write
    (adaLN-zero). The projection of the time is that of the whole network; a block adds a table of its own.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_1 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SelfAttention(width, config.heads)
        self.norm_text = nn.LayerNorm(width)
        self.text_attention = CrossAttention(width, config.text.width, config.heads)
        self.norm_2 = nn.LayerNorm(width, elementwise_affine=False)
        self.feed_forward = FeedForward(width)
        self.table = nn.Parameter(torch.zeros(6, width))

    def forward(self, x: Tensor, modulation: Tensor, sequence: Tensor) -> Tensor:
        """Map patches to the same shape.

        Parameters
        ----------
        x : Tensor, (batch, patch, width)
        modulation : Tensor, (batch, 6, width)
            Shift, scale and gate of the attention, then of the feed-forward.
        sequence : Tensor, (batch, text width, token)
        """
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (modulation + self.table)[:, :, None].unbind(dim=1)
        x = x + gate_1 * self.attention(self.norm_1(x) * (1 + scale_1) + shift_1)
        x = x + self.text_attention(self.norm_text(x), sequence)
        return x + gate_2 * self.feed_forward(self.norm_2(x) * (1 + scale_2) + shift_2)


class FlowTransformer(nn.Module):
    """Text-conditional transformer over the patches of an image that predicts a velocity.

    Parameters
    ----------
    config : FlowConfig

    Notes
    -----
    `encode_text` is separate from `forward`, so that the text transformer runs once per prompt.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        width, pixels = config.width, config.channels * config.patch**2
        self.text_encoder = TextEncoder(config.text, width)
        self.time_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Sequential(nn.SiLU(), _zeroed(nn.Linear(width, 6 * width)))
        self.patch_embed = nn.Linear(pixels, width)
        self.positional_embedding = nn.Parameter(0.02 * torch.randn((config.image_size // config.patch) ** 2, width))
        self.blocks = nn.ModuleList(FlowBlock(config) for _ in range(config.depth))
        self.out_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.out_modulation = nn.Sequential(nn.SiLU(), _zeroed(nn.Linear(width, 2 * width)))
        self.out = _zeroed(nn.Linear(width, pixels))

    def encode_text(self, tokens: Tensor, mask: Tensor) -> TextEmbedding:
        """Run the text transformer on padded prompts; ``mask`` is true for real tokens, both (batch, context)."""
        embedding: TextEmbedding = self.text_encoder(tokens, mask)
        return embedding

    def forward(self, x: Tensor, times: Tensor, pooled: Tensor, sequence: Tensor) -> Tensor:
        """Predict the velocity, noise minus image.

        Parameters
        ----------
        x : Tensor, (batch, channel, y, x)
            (1 - t) image + t noise.
        times : Tensor, (batch,)
            t from 0, the image, to 1, the noise.
        pooled, sequence : Tensor
            The two parts of a `TextEmbedding`.

        Returns
        -------
        Tensor, (batch, channel, y, x)
        """
        size = {"p": self.config.patch, "q": self.config.patch}
        patches = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", **size)
        h = self.patch_embed(patches) + self.positional_embedding
        # the sinusoids were made for timesteps up to 1000
        condition = self.time_embed(timestep_embedding(1000 * times, self.config.width)) + pooled
        modulation = rearrange(self.modulation(condition), "b (six c) -> b six c", six=6)
        for block in self.blocks:
            h = block(h, modulation, sequence)
        shift, scale = self.out_modulation(condition)[:, None].chunk(2, dim=-1)
        h = self.out(self.out_norm(h) * (1 + scale) + shift)
        rows = self.config.image_size // self.config.patch
        return rearrange(h, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, **size)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    """Start a layer at zero: what it gates or adds is then not there at first."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
