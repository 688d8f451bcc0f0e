"""GLIDE's text transformer: tokens in, one vector and one sequence of vectors out.

Source: Nichol et al. 2022, "GLIDE", section 4.1. Written anew; the parameter names are those of the official
checkpoint, so that its state dict loads with ``strict=True``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from causalunet.calls import clear_calls

__all__ = ["TextConfig", "TextEmbedding", "Transformer"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Sizes of a text transformer.

    Parameters
    ----------
    vocabulary : int
        Number of token ids.
    context : int
        Tokens per prompt, padding included.
    width, layers, heads : int
        Channels, residual blocks and attention heads.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int


class TextEmbedding(NamedTuple):
    """What the U-Net needs of a prompt: computed once per prompt, not once per step.

    Attributes
    ----------
    pooled : Tensor, (batch, 4 * model_channels)
        Added to the timestep embedding.
    sequence : Tensor, (batch, width, context)
        Keys and values appended in every attention block.
    """

    pooled: Tensor
    sequence: Tensor


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention; queries, keys and values of a head lie side by side in ``c_qkv``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the tokens of ``x``, (batch, tokens, width)."""
        query, key, value = rearrange(self.c_qkv(x), "b n (h three c) -> three b h n c", three=3, h=self.heads)
        return self.c_proj(rearrange(F.scaled_dot_product_attention(query, key, value), "b h n c -> b n (h c)"))


class FeedForward(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token of ``x``, (batch, tokens, width), by itself."""
        return self.c_proj(F.gelu(self.c_fc(x)))


class TransformerBlock(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward, both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of `TransformerBlock`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TransformerBlock(config.width, config.heads) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        for block in self.resblocks:
            x = block(x)
        return x


def replace_padding(embedded: Tensor, mask: Tensor, padding: Tensor) -> Tensor:
    """Put the learned padding vectors where ``mask`` is false.

    Parameters
    ----------
    embedded : Tensor, (batch, tokens, width)
    mask : Tensor of bool, (batch, tokens)
        True for real tokens.
    padding : Tensor, (tokens, width)
    """
    return torch.where(mask[..., None], embedded, padding)
